"""Row-level coverage: a gate says for which rows an expensive member pays, a knapsack spends the seconds that are left.

The gain of a row is the divergence of the blend with the member from the blend without it, KL(after || before): what the log
loss falls by if the fuller blend is right about the odds. Unlike the realised gain it does not depend on how this one battle
ended, and so is far easier to learn. Rows are taken in the order of predicted gain a second until the seconds are spent,
which is the fractional knapsack's optimum up to one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.blend import BlendSpec
from ensemble.crossfit import Evaluator, choose_by_other_folds
from ensemble.plan import Gate
from zoo.scores import log_loss_rows

FEATURES = (
    "entropy",
    "lead",
    "tie",
    "log_characters",
    "entropy^2",
    "lead^2",
    "tie^2",
    "log_characters^2",
    "entropy*log_characters",
)
_RIDGE = 1e-3
FEWEST_PATTERN_ROWS = 300  # below it a coverage pattern uses the blend of all rows
LEAST_COVERAGE = 0.02


@dataclass(frozen=True)
class Covered:
    """A coverage plan out of fold: `losses` (rows,), the rows each gated member sees, and which patterns have own blends."""

    losses: np.ndarray
    seen: dict[int, np.ndarray]
    own_blend: frozenset[tuple[int, ...]]


def gate_features(p: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """FEATURES of rows (rows, features): p (rows, 3) as blended so far, and their characters (rows,)."""
    safe = np.maximum(np.asarray(p, dtype=np.float64), 1e-12)
    entropy = -(safe * np.log(safe)).sum(axis=1)
    lead, tie = np.abs(p[:, 0] - p[:, 1]), p[:, 2]
    length = np.log1p(np.asarray(characters, dtype=np.float64))
    columns = (entropy, lead, tie, length, entropy**2, lead**2, tie**2, length**2, entropy * length)
    return np.stack(columns, axis=1)


def fit_gate(given: Sequence[str], p: np.ndarray, characters: np.ndarray, gain: np.ndarray) -> Gate:
    """Ridge regression of `gain` (rows,), nats, on the features of the blend of `given`."""
    x = gate_features(p, characters)
    center, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = (x - center) / scale
    hessian = z.T @ z / len(z) + _RIDGE * np.eye(z.shape[1])
    coefficients = np.linalg.solve(hessian, z.T @ (gain - gain.mean()) / len(z))
    return Gate(
        features=FEATURES,
        center=tuple(center.tolist()),
        scale=tuple(scale.tolist()),
        coefficients=tuple(coefficients.tolist()),
        intercept=float(gain.mean()),
        given=tuple(given),
    )


def predicted_gain(gate: Gate, p: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Nats (rows,) that the gated member is expected to bring to rows with blend `p` (rows, 3) of the gate's `given`."""
    z = (gate_features(p, characters) - np.asarray(gate.center)) / np.asarray(gate.scale)
    gain: np.ndarray = gate.intercept + z @ np.asarray(gate.coefficients)
    return gain


def spend(gain: np.ndarray, seconds: np.ndarray, budget: float) -> np.ndarray:
    """Rows, bool (rows,), in the order of gain a second until the next one would exceed `budget` seconds."""
    order = np.argsort(-gain / np.maximum(seconds, 1e-9), kind="stable")
    taken = np.cumsum(seconds[order]) <= budget * (1 + 1e-12)
    seen = np.zeros(len(gain), dtype=bool)
    seen[order[taken]] = True
    return seen


def divergence(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """KL(after || before) in nats of each row; both (rows, 3)."""
    a, b = np.maximum(after, 1e-12), np.maximum(before, 1e-12)
    kl: np.ndarray = (a * (np.log(a) - np.log(b))).sum(axis=1)
    return kl


def cover(
    evaluator: Evaluator,
    spec: BlendSpec,
    characters: np.ndarray,
    row_seconds: np.ndarray,
    whole: Sequence[int],
    gated: Sequence[tuple[int, float]],
) -> Covered:
    """Judge a coverage plan out of fold: `whole` see every row, each of `gated` (member, seconds of work) its best ones.

    Each fold's rows get gates and blends that were fitted to the other folds. What a gate learns from are
    out-of-fold blends of the other folds, whose fits saw the rows that it is then judged on; and `spec` and the seconds are the
    caller's, who may have chosen them on all rows. `row_seconds` (members, rows).
    """
    patterns: dict[tuple[int, ...], np.ndarray] = {tuple(sorted(whole)): np.ones(len(characters), dtype=bool)}
    seen: dict[int, np.ndarray] = {}
    for j, seconds in gated:
        before, after = (_current(evaluator, spec, patterns, extra) for extra in ((), (j,)))
        gain = _gain_out_of_fold(evaluator, before, characters, divergence(after, before))
        seen[j] = spend(gain, row_seconds[j], seconds)
        patterns = _split(patterns, j, seen[j])
    losses = np.empty(len(characters))
    own: set[tuple[int, ...]] = set()
    for pattern, rows in patterns.items():
        losses[rows], has_own = _pattern_losses(evaluator, spec, pattern, rows)
        own |= {pattern} if has_own else set()
    return Covered(losses, seen, frozenset(own))


def pattern_rows(whole: Sequence[int], seen: dict[int, np.ndarray], rows: int) -> dict[tuple[int, ...], np.ndarray]:
    """Coverage patterns (sorted members) with the rows, bool (rows,), that have exactly these members."""
    patterns = {tuple(sorted(whole)): np.ones(rows, dtype=bool)}
    for j, mask in seen.items():
        patterns = _split(patterns, j, mask)
    return patterns


def _split(patterns: dict[tuple[int, ...], np.ndarray], j: int, mask: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    parts = {tuple(sorted((*pattern, j))): rows & mask for pattern, rows in patterns.items()}
    parts |= {pattern: rows & ~mask for pattern, rows in patterns.items()}
    return {pattern: rows for pattern, rows in parts.items() if rows.any()}


def _current(
    evaluator: Evaluator, spec: BlendSpec, patterns: dict[tuple[int, ...], np.ndarray], extra: tuple[int, ...]
) -> np.ndarray:
    """Out-of-fold triples (rows, 3) of each row's pattern with `extra` members, by the blends of all rows."""
    out = np.empty((len(evaluator.y), 3))
    for pattern, rows in patterns.items():
        out[rows] = evaluator.oof((*pattern, *extra), spec)[rows]
    return out


def _gain_out_of_fold(evaluator: Evaluator, before: np.ndarray, characters: np.ndarray, gain: np.ndarray) -> np.ndarray:
    predicted = np.empty(len(gain))
    for fold in np.unique(evaluator.folds):
        held = evaluator.folds == fold
        gate = fit_gate((), before[~held], characters[~held], gain[~held])
        predicted[held] = predicted_gain(gate, before[held], characters[held])
    return predicted


def _pattern_losses(
    evaluator: Evaluator, spec: BlendSpec, pattern: tuple[int, ...], rows: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Losses of a pattern's rows, by the blend of all rows or the pattern's own, as the other folds prefer; and which wins."""
    common = evaluator.oof(pattern, spec)[rows]
    y, folds = evaluator.y[rows], evaluator.folds[rows]
    fewest = min(int((rows & (evaluator.folds != fold)).sum()) for fold in np.unique(evaluator.folds))
    if rows.all() or fewest < FEWEST_PATTERN_ROWS:
        return log_loss_rows(common, y), False
    own = evaluator.fit_rows(pattern, spec, rows)[rows]
    losses, best = choose_by_other_folds([common, own], y, folds)
    return losses, best == 1
