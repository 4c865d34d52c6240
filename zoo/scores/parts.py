"""Parts of labelled rows beside the rest, and who is right where two predictions differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.scores.metrics import log_loss_rows, mean_and_error, standard_error
from zoo.scores.slices import FEWEST_ROWS

SURE = 1.96  # standard errors: the 95 % interval


@dataclass(frozen=True)
class Part:
    """Rows that have something in common.

    `kind`: of thing, as "language"; `name`: which one, as "en"; `inside`: bool (rows,).
    """

    kind: str
    name: str
    inside: np.ndarray


@dataclass(frozen=True)
class PartLoss:
    """A part's mean log loss in nats, and that mean minus the other rows', each with its error.

    Errors are by prompts: rows of one count as dependent. `against_rest` is None where there are fewer than FEWEST_ROWS others,
    and its error NaN where either side is of one prompt.
    """

    kind: str
    name: str
    rows: int
    share: float
    loss: float
    error: float
    against_rest: float | None
    against_rest_error: float | None

    @property
    def differs(self) -> bool:
        """Whether the 95 % interval of the difference from the other rows leaves out zero."""
        return is_told(self.against_rest, self.against_rest_error)


@dataclass(frozen=True)
class PartGain:
    """Another prediction's log loss in a part minus one's own: below zero the other is better."""

    other: str
    kind: str
    name: str
    rows: int
    own: float
    theirs: float
    difference: float
    error: float


@dataclass(frozen=True)
class Agreement:
    """Two predictions on the same rows.

    `same`: the share of rows with the same likeliest label. Of the other rows `first_right` and `second_right` are the shares
    in which one of them has the label; in the rest neither has. `difference`: the first's log loss minus the second's on those
    rows, NaN where there are none; `correlation`: of their losses on all rows, NaN where one of them never varies.
    """

    first: str
    second: str
    rows: int
    same: float
    correlation: float
    first_right: float
    second_right: float
    difference: float
    error: float


@dataclass(frozen=True)
class ClassCalibration:
    """A label's mean probability beside how often it happened; `gap`: the first minus that."""

    label: str
    predicted: float
    happened: float
    gap: float
    error: float


def is_told(difference: float | None, error: float | None) -> bool:
    """Whether the 95 % interval of a difference leaves out zero.

    Not where nothing is known of its error.
    """
    return bool(difference is not None and error and np.isfinite(error) and abs(difference) > SURE * error)


def against_rest(values: np.ndarray, inside: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Mean of `values` (rows,) in a part minus that of the other rows, and its standard error.

    `groups` (rows,): what depends on each other, as rows of a prompt, which may lie on both sides. The sandwich estimator of a
    difference of means with clusters: each row's influence is its deviation from the mean of its side over the rows there.
    NaN where a side is of one group, whose deviations sum to nothing: of its spread between groups nothing is known.
    """
    alone = any(len(np.unique(groups[side])) < 2 for side in (inside, ~inside))
    count = np.where(inside, inside.sum(), (~inside).sum())
    means = values[inside].mean(), values[~inside].mean()
    influence = np.where(inside, values - means[0], means[1] - values) / count
    error = float("nan") if alone else standard_error(influence * len(values), groups)
    return float(means[0] - means[1]), error


def part_losses(losses: np.ndarray, groups: np.ndarray, parts: Sequence[Part]) -> list[PartLoss]:
    """Each part's loss beside the rest's, of the parts with at least FEWEST_ROWS rows.

    `losses`, `groups`: (rows,).
    """
    found = []
    for part in parts:
        rows = int(part.inside.sum())
        if rows < FEWEST_ROWS:
            continue
        loss, error = mean_and_error(losses[part.inside], groups[part.inside])
        is_compared = len(losses) - rows >= FEWEST_ROWS  # a mean over fewer says no more as the rest than as a part
        rest = against_rest(losses, part.inside, groups) if is_compared else (None, None)
        found.append(PartLoss(part.kind, part.name, rows, rows / len(losses), loss, error, *rest))
    return found


def part_gains(other: str, own: np.ndarray, theirs: np.ndarray, groups: np.ndarray, parts: Sequence[Part]) -> list[PartGain]:
    """Another prediction beside one's own in each part with at least FEWEST_ROWS rows.

    `own`, `theirs`: losses (rows,), NaN where the other has none: only rows that both have are compared.
    """
    found = []
    known = np.isfinite(theirs)
    for part in parts:
        inside = part.inside & known
        if int(inside.sum()) < FEWEST_ROWS:
            continue
        difference, error = mean_and_error(theirs[inside] - own[inside], groups[inside])
        means = float(own[inside].mean()), float(theirs[inside].mean())
        found.append(PartGain(other, part.kind, part.name, int(inside.sum()), *means, difference, error))
    return found


def agreement(names: tuple[str, str], p: tuple[np.ndarray, np.ndarray], y: np.ndarray, groups: np.ndarray) -> Agreement:
    """How two predictions (rows, 3) of the same rows agree, and who is right elsewhere.

    `y`, `groups`: (rows,).
    """
    guesses = [table.argmax(axis=1) for table in p]
    losses = [log_loss_rows(table, y) for table in p]
    apart = guesses[0] != guesses[1]
    right = [float((guess[apart] == y[apart]).mean()) if apart.any() else float("nan") for guess in guesses]
    varied = all(loss.std() > 0 for loss in losses)
    correlation = float(np.corrcoef(losses[0], losses[1])[0, 1]) if varied else float("nan")
    difference, error = float("nan"), float("nan")
    if apart.any():
        difference, error = mean_and_error((losses[0] - losses[1])[apart], groups[apart])
    same = float(1 - apart.mean())
    return Agreement(names[0], names[1], len(y), same, correlation, right[0], right[1], difference, error)


def class_calibration(p: np.ndarray, y: np.ndarray, groups: np.ndarray, labels: Sequence[str]) -> list[ClassCalibration]:
    """Each label's mean probability beside its share of the rows; errors are by prompts."""
    found = []
    for label, name in enumerate(labels):
        gap, error = mean_and_error(p[:, label] - (y == label), groups)
        found.append(ClassCalibration(name, float(p[:, label].mean()), float((y == label).mean()), gap, error))
    return found
