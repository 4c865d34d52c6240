"""The gate of an expensive member: for which rows it is worth its cost.

A regression predicts the gain of a row from the blend of cheaper members; seconds go to the rows of most gain a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.plan import FEATURES, ROUNDING, Gate
from ensemble.pools.crossfit import rows_beside

LEAST_SECONDS = 1e-9  # a row's price is never zero, so that gain a second is a number
SMALLEST_SCALE = 1e-9  # a feature that varies less says nothing
_RIDGE = 1e-3


def gate_features(p: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """FEATURES of rows (rows, features).

    p (rows, 3) as blended so far, and the rows' characters (rows,).
    """
    safe = np.maximum(np.asarray(p, dtype=np.float64), 1e-12)
    entropy = -sum_of_three(safe * np.log(safe))
    lead, tie = np.abs(p[:, 0] - p[:, 1]), p[:, 2]
    length = np.log1p(np.asarray(characters, dtype=np.float64))
    columns = (entropy, lead, tie, length, entropy**2, lead**2, tie**2, length**2, entropy * length)
    return np.stack(columns, axis=1)


def fit_gate(given: Sequence[str], p: np.ndarray, characters: np.ndarray, gain: np.ndarray) -> Gate:
    """Ridge regression of `gain` (rows,), nats, on the features of the blend of `given`."""
    x = gate_features(p, characters)
    center, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > SMALLEST_SCALE, scale, 1.0)
    z = (x - center) / scale
    coefficients = np.linalg.solve(z.T @ z / len(z) + _RIDGE * np.eye(z.shape[1]), z.T @ (gain - gain.mean()) / len(z))
    return Gate(
        features=FEATURES,
        center=tuple(center.tolist()),
        scale=tuple(scale.tolist()),
        coefficients=tuple(coefficients.tolist()),
        intercept=float(gain.mean()),
        given=tuple(given),
    )


def gain_out_of_fold(
    p: np.ndarray, characters: np.ndarray, gain: np.ndarray, folds: np.ndarray, prompts: np.ndarray | None = None
) -> np.ndarray:
    """Nats (rows,) by gates that `fit_gate` would fit to the rows of the other folds (rows,).

    A ridge regression needs sums over rows alone: those of the other folds are all rows' less the fold's own, and less those
    of its prompts where `prompts` are given.
    """
    x = gate_features(p, characters)
    x -= x.mean(axis=0)  # so that no sum is a small difference of large ones
    least = np.maximum(SMALLEST_SCALE, 1e-6 * x.std(axis=0))  # below it a difference of sums is rounding
    rows = np.column_stack([np.ones(len(x)), x, gain])
    everything, predicted = rows.T @ rows, np.empty(len(gain))
    for fold in np.unique(folds):
        held = folds == fold
        apart = rows[~rows_beside(held, prompts)]
        others = (everything - apart.T @ apart) / (len(rows) - len(apart))
        mean = others[0, 1:]
        spread = others[1:, 1:] - np.outer(mean, mean)
        scale = np.sqrt(np.maximum(np.diag(spread)[:-1], 0.0))
        scale = np.where(scale > least, scale, 1.0)
        hessian = spread[:-1, :-1] / np.outer(scale, scale) + _RIDGE * np.eye(len(scale))
        coefficients = np.linalg.solve(hessian, spread[:-1, -1] / scale) / scale
        predicted[held] = mean[-1] + (rows[held, 1:-1] - mean[:-1]) @ coefficients
    return predicted


def predicted_gain(gate: Gate, p: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Nats (rows,) that the gated member is expected to bring to rows with blend `p` (rows, 3).

    The blend is of the gate's `given`.
    """
    z = (gate_features(p, characters) - np.asarray(gate.center)) / np.asarray(gate.scale)
    gain: np.ndarray = gate.intercept + z @ np.asarray(gate.coefficients)
    return gain


def spend(gain: np.ndarray, seconds: np.ndarray, budget: float) -> tuple[np.ndarray, int]:
    """Row numbers by gain a second, and how many of them `budget` seconds pay for.

    The highest first, ties in their order.
    """
    order = np.argsort(-gain / np.maximum(seconds, LEAST_SECONDS), kind="stable")
    return order, paid_for(seconds[order], budget)


def paid_for(seconds: np.ndarray, budget: float) -> int:
    """How many rows `budget` seconds pay for, in their order.

    Until the next one would exceed them.
    """
    return int((np.cumsum(seconds) <= budget * (1 + ROUNDING)).sum())


def mask_of(rows: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` rows are among these row numbers: bool (count,)."""
    mask = np.zeros(count, dtype=bool)
    mask[rows] = True
    return mask


def divergence(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """KL(after || before) in nats of each row; both (rows, 3)."""
    a, b = np.maximum(after, 1e-12), np.maximum(before, 1e-12)
    return sum_of_three(a * (np.log(a) - np.log(b)))


def sum_of_three(columns: np.ndarray) -> np.ndarray:
    """Sums (rows,) of (rows, 3): numpy is slow along so short an axis."""
    total: np.ndarray = columns[:, 0] + columns[:, 1] + columns[:, 2]
    return total
