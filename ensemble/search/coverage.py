"""Coverage: expensive members on the rows where a gate expects them to pay.

A knapsack spends the seconds that are left. The gain of a row is the divergence of the blend with the member from the blend
without it, KL(after || before): what the log loss falls by if the fuller blend is right about the odds. Unlike the realised
gain it does not depend on how this one battle ended, and so is far easier to learn. Rows are taken in the order of predicted
gain a second until the seconds are spent, which is the fractional knapsack's optimum up to one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.pools.blend import BlendSpec
from ensemble.pools.crossfit import Evaluator, choose_by_other_folds
from ensemble.pools.gate import divergence, gain_out_of_fold, mask_of, spend
from zoo.scores.metrics import log_loss_rows

FEWEST_PATTERN_ROWS = 300  # below it a coverage pattern uses the blend of all rows


@dataclass(frozen=True)
class Covered:
    """A coverage plan out of fold.

    `losses` (rows,), the rows that each gated member sees, and which patterns have blends of their own.
    """

    losses: np.ndarray
    seen: dict[int, np.ndarray]
    own_blend: frozenset[tuple[int, ...]]


def cover(
    evaluator: Evaluator,
    spec: BlendSpec,
    characters: np.ndarray,
    row_seconds: np.ndarray,
    whole: Sequence[int],
    gated: Sequence[tuple[int, float]],
) -> Covered:
    """Judge a coverage plan out of fold.

    `whole` see every row, each of `gated` (member, seconds of work) its best ones. Each fold's rows get gates and blends that
    were fitted to the other folds. What a gate learns from are out-of-fold blends of the other folds, whose fits saw the rows
    that it is then judged on; and `spec` and the seconds are the caller's, who may have chosen them on all rows. `row_seconds`
    (members, rows).
    """
    patterns: dict[tuple[int, ...], np.ndarray] = {tuple(sorted(whole)): np.ones(len(characters), dtype=bool)}
    seen: dict[int, np.ndarray] = {}
    for j, seconds in gated:
        before, after = (_current(evaluator, spec, patterns, extra) for extra in ((), (j,)))
        gain = gain_out_of_fold(before, characters, divergence(after, before), evaluator.folds, evaluator.prompts)
        order, count = spend(gain, row_seconds[j], seconds)
        seen[j] = mask_of(order[:count], len(gain))
        patterns = _split(patterns, j, seen[j])
    losses = np.empty(len(characters))
    own: set[tuple[int, ...]] = set()
    for pattern, rows in patterns.items():
        losses[rows], has_own = _pattern_losses(evaluator, spec, pattern, rows)
        own |= {pattern} if has_own else set()
    return Covered(losses, seen, frozenset(own))


def pattern_rows(whole: Sequence[int], seen: dict[int, np.ndarray], rows: int) -> dict[tuple[int, ...], np.ndarray]:
    """Coverage patterns (sorted members) with the rows, bool (rows,), that each has."""
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
    """Out-of-fold triples (rows, 3) of each row's pattern with `extra` members.

    The blends are those fitted on all rows.
    """
    out = np.empty((len(evaluator.y), 3))
    for pattern, rows in patterns.items():
        out[rows] = evaluator.oof((*pattern, *extra), spec)[rows]
    return out


def _pattern_losses(
    evaluator: Evaluator, spec: BlendSpec, pattern: tuple[int, ...], rows: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Losses of a pattern's rows, and whether a blend of their own is the better one.

    Each fold takes the blend of all rows or the pattern's own, as the other folds prefer.
    """
    common = evaluator.oof(pattern, spec)[rows]
    y, folds = evaluator.y[rows], evaluator.folds[rows]
    fewest = min(int((rows & (evaluator.folds != fold)).sum()) for fold in np.unique(evaluator.folds))
    if rows.all() or fewest < FEWEST_PATTERN_ROWS:
        return log_loss_rows(common, y), False
    own = evaluator.fit_rows(pattern, spec, rows)[rows]
    losses, best = choose_by_other_folds([common, own], y, folds)
    return losses, best == 1
