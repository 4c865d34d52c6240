"""Which rows the members share: one that lacks many is weighed against their worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.scores.metrics import log_loss_rows, standard_error
from zoo.scores.tables import probabilities

FEWEST_ROWS = 20
HARMLESS = 0.05  # a member that costs no more than this share of the rows is not weighed
PARAMETERS = 3  # that a blend spends on a member: weight, temperature, bias


@dataclass(frozen=True)
class Shared:
    """The members that stay, by place, and why the others do not.

    `ids`: the rows that all that stay have, sorted.
    """

    kept: tuple[int, ...]
    ids: tuple[str, ...]
    reasons: dict[int, str]


def shared_rows(
    names: Sequence[str], frames: Sequence[pd.DataFrame], labels: pd.Series, groups: Mapping[str, int], asked: Sequence[str]
) -> Shared:
    """Admit members one after the other, those asked for first, then those with the most rows.

    One that would cost more than HARMLESS of the rows so far has to earn them: on the rows that are left, the equal mix of it
    and the best member so far (or itself alone, where that is better) must beat that one by more than the price of fewer rows,
    with one standard error to spare. The price is what a blend loses out of sample by being fitted to n rows instead of N, half
    a nat per parameter and row: PARAMETERS * members / 2 * (1 / n - 1 / N) (Akaike 1974). `frames` hold probabilities by id;
    `labels` and `groups` (prompts) are by id.
    """
    order = sorted(range(len(names)), key=lambda j: (names[j] not in asked, -len(frames[j]), names[j]))
    kept: list[int] = []
    reasons: dict[int, str] = {}
    ids: set[str] = set()
    for j in order:
        left = ids & set(frames[j].index) if kept else set(frames[j].index)
        if kept and names[j] not in asked and len(left) < (1 - HARMLESS) * len(ids):
            reason = _not_worth([frames[k] for k in kept], frames[j], sorted(left), len(ids), labels, groups)
            if reason:
                reasons[j] = reason + "; --include asks for it"
                continue
        kept.append(j)
        ids = left
    return Shared(tuple(sorted(kept)), tuple(sorted(ids)), reasons)


def _not_worth(
    others: Sequence[pd.DataFrame],
    frame: pd.DataFrame,
    left: list[str],
    before: int,
    labels: pd.Series,
    groups: Mapping[str, int],
) -> str:
    """Why a member is not worth the rows that it lacks; empty where it is."""
    cost = f"it would cost {before - len(left):,} of the {before:,} rows that the others share"
    if len(left) < FEWEST_ROWS:
        return f"{cost}: {len(left)} would be left"
    y = labels.loc[left].to_numpy(dtype=np.int64)
    own = probabilities(frame.loc[left])
    p = min((probabilities(other.loc[left]) for other in others), key=lambda p: float(log_loss_rows(p, y).mean()))
    alone = log_loss_rows(p, y)
    gains = [alone - log_loss_rows(own, y), alone - log_loss_rows((own + p) / 2, y)]
    gain = max(gains, key=lambda gain: float(gain.mean()))
    error = standard_error(gain, np.array([groups[i] for i in left]))
    price = PARAMETERS * (len(others) + 1) / 2 * (1 / len(left) - 1 / before)
    if gain.mean() - error > price:  # of one prompt the error is NaN: nothing is known, and nothing is paid
        return ""
    return f"{cost}, worth {price:.4f} nats, and gains {gain.mean():.4f} +- {error:.4f} on the {len(left):,} that it has"
