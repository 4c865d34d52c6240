"""Ways to read rows, compared by log loss and hours, and which of them are worth theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.contracts import Contract, Variant
from zoo.scores.metrics import mean_and_error

CAPS = "caps.json"  # an artifact's readings


class Reading(Contract):
    """A variant of a checkpoint on held-out rows.

    `log_loss` in nats; `change`: its difference from the reference's, on the same rows; errors are standard errors by groups of
    near-copied prompts, None where there is but one. `tokens`: mean of a row; `cut`: rows that lost tokens; `shared`: rows that
    an earlier variant had scored with the same tokens. `hours`: low, likely and high, of a file of such rows on the target.
    """

    variant: Variant
    log_loss: float
    log_loss_se: float | None
    change: float
    change_se: float | None
    rows: int
    tokens: float
    cut: int
    shared: int
    hours: tuple[float, float, float]
    worthwhile: bool

    @property
    def likely_hours(self) -> float:
        return self.hours[1]


class CapsReport(Contract):
    """Every reading of a checkpoint, and what they are compared by.

    `rows` battles that hours are of, on `target`; `reference`: the variant that changes are from; `battles`: held-out rows of
    `prompts` groups of near-copied prompts; `guessing`: the log loss of equal shares there.
    """

    entry: str
    target: str
    rows: int
    reference: str
    battles: int
    prompts: int
    guessing: float
    readings: tuple[Reading, ...]

    @property
    def worthwhile(self) -> tuple[Variant, ...]:
        """The variants that are worth their hours, the cheapest first."""
        found = sorted((one for one in self.readings if one.worthwhile), key=lambda one: one.likely_hours)
        return tuple(one.variant for one in found)


def worth_their_hours(losses: np.ndarray, hours: Sequence[float], groups: np.ndarray) -> list[int]:
    """Which variants are worth their hours, the cheapest first.

    `losses` (rows, variants) in nats, `hours` (variants,), `groups` (rows,): the same for near-copied prompts. They are the
    lower convex hull of log loss against hours, from the cheapest on: after each comes the dearer one that gains most an hour,
    of those that gain more than one standard error of the paired difference. (The one-standard-error rule of Breiman et al.
    1984, Classification and Regression Trees, 3.4.3: of what cannot be told apart, the simpler.)
    """
    means = losses.mean(axis=0)
    place = min(range(len(hours)), key=lambda j: (hours[j], means[j]))
    found = [place]
    while True:
        slopes = {}
        for j in range(len(hours)):
            gain, error = mean_and_error(losses[:, place] - losses[:, j], groups)
            if hours[j] > hours[place] and gain > (error if math.isfinite(error) else 0.0):
                slopes[j] = gain / (hours[j] - hours[place])
        if not slopes:
            return found
        place = max(slopes, key=slopes.__getitem__)
        found.append(place)


def caps_metrics(report: CapsReport) -> dict[str, float]:
    """The readings as metrics: `caps/ab-512/log_loss`, `caps/ab-512/hours`, ..."""
    found: dict[str, float | None] = {"caps/rows": float(report.battles)}
    for one in report.readings:
        numbers: Mapping[str, float | None] = {
            "log_loss": one.log_loss,
            "log_loss_se": one.log_loss_se,
            "change": one.change,
            "change_se": one.change_se,
            "tokens_per_row": one.tokens,
            "rows_cut": float(one.cut),
            "hours": one.likely_hours,
            "worthwhile": float(one.worthwhile),
        }
        found |= {f"caps/{one.variant.slug}/{name}": value for name, value in numbers.items()}
    return {name: value for name, value in found.items() if value is not None}
