"""Out-of-fold log loss: blends fitted without the rows they are judged on, folds grouped by prompt."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.blend import SPECS, BlendSpec, apply_blend, fit_blend
from ensemble.plan import Blend, Paired
from zoo.scores import log_loss_rows

INNER_ROWS = 20_000  # the choice of pool and shrinkage looks at no more rows than this; every reported number looks at all
DEFAULT_SPECS: dict[str, BlendSpec] = {
    "linear": BlendSpec("linear"),
    "log": BlendSpec("log", floor=1e-2),
    "logistic": BlendSpec("logistic", 1e-4, floor=1e-2),
}


@dataclass(frozen=True)
class Nested:
    """Out-of-fold triples (rows, 3) of a set whose pool and shrinkage each outer fold chose without its own rows.

    `spec`: the choice of all rows together; `blend`: fitted with it to all rows, for use.
    """

    p: np.ndarray
    losses: np.ndarray
    spec: BlendSpec
    blend: Blend


def named(names: Sequence[str], p: np.ndarray) -> dict[str, np.ndarray]:
    """Tables (members, rows, 3) under their names."""
    return dict(zip(names, p, strict=True))


def cross_fit(
    spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray, folds: np.ndarray, seen: np.ndarray | None = None
) -> np.ndarray:
    """Triples (rows, 3) of each fold's rows by a blend fitted to the other folds' rows, of these only the `seen` ones."""
    out = np.empty((len(y), 3))
    start: Blend | None = None
    for fold in np.unique(folds):
        held = folds == fold
        fitting = ~held if seen is None else ~held & seen
        start = fit_blend(spec, names, p[:, fitting], y[fitting], start=start)
        out[held] = apply_blend(start, named(names, p[:, held]))
    return out


def nested(names: Sequence[str], p: np.ndarray, y: np.ndarray, folds: np.ndarray, specs: Sequence[BlendSpec] = SPECS) -> Nested:
    """Nested cross-validation of a set of members.

    Within each outer fold the pool is chosen by inner folds that never saw it: a fit that leaves out folds j and k judges j for
    outer fold k, and k for outer fold j.
    """
    numbers = np.unique(folds)
    if len(numbers) < 3:
        raise ValueError(f"nested folds need at least 3 folds, got {len(numbers)}")
    inner = inner_losses(names, p, y, folds, specs)
    out = np.empty((len(y), 3))
    for place, fold in enumerate(numbers):
        held = folds == fold
        spec = specs[int(np.nanmean(inner[:, place], axis=1).argmin())]
        blend = fit_blend(spec, names, p[:, ~held], y[~held])
        out[held] = apply_blend(blend, named(names, p[:, held]))
    best = specs[int(np.nanmean(inner, axis=(1, 2)).argmin())]
    return Nested(out, log_loss_rows(out, y), best, fit_blend(best, names, p, y))


def inner_losses(
    names: Sequence[str], p: np.ndarray, y: np.ndarray, folds: np.ndarray, specs: Sequence[BlendSpec]
) -> np.ndarray:
    """Mean log loss (specs, outer fold, inner fold) on the inner fold of fits that saw neither; NaN on the diagonal."""
    if len(y) > INNER_ROWS:
        keep = np.flatnonzero(np.arange(len(y)) % -(-len(y) // INNER_ROWS) == 0)  # rows are in the order of their ids
        p, y, folds = p[:, keep], y[keep], folds[keep]
    numbers = np.unique(folds)
    losses = np.full((len(specs), len(numbers), len(numbers)), np.nan)
    for place, spec in enumerate(specs):
        start: Blend | None = None
        for j, k in itertools.combinations(range(len(numbers)), 2):
            fitting = (folds != numbers[j]) & (folds != numbers[k])
            start = fit_blend(spec, names, p[:, fitting], y[fitting], start=start)
            for outer, judged in ((j, k), (k, j)):
                held = folds == numbers[judged]
                predicted = apply_blend(start, named(names, p[:, held]))
                losses[place, outer, judged] = log_loss_rows(predicted, y[held]).mean()
    return losses


def choose_by_other_folds(tables: Sequence[np.ndarray], y: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, int]:
    """Of several out-of-fold tables (rows, 3), each fold takes the one that is best on the other folds.

    Returns the losses (rows,) of that, and which table is best on all rows. A quick stand-in for `nested` where many sets are
    compared: the choice is of few, and never made on the rows it is judged on.
    """
    return choose_losses(np.stack([log_loss_rows(table, y) for table in tables]), folds)


def choose_losses(losses: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, int]:
    """As `choose_by_other_folds`, of losses (tables, rows)."""
    chosen = np.empty(losses.shape[1])
    for fold in np.unique(folds):
        held = folds == fold
        chosen[held] = losses[losses[:, ~held].mean(axis=1).argmin(), held]
    return chosen, int(losses.mean(axis=1).argmin())


def standard_error(losses: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean of `losses` (rows,), rows of one group (prompt) counted as dependent.

    The sandwich estimator of a mean with clusters: sqrt(G / (G - 1) * sum over groups of (sum of deviations)^2) / rows.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.bincount(inverse, weights=losses - losses.mean())
    count = len(sums)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(losses)) if count > 1 else float("inf")


def paired(other: str, ours: np.ndarray, theirs: np.ndarray, groups: np.ndarray) -> Paired:
    """Ours against another's losses row by row: mean difference and its standard error."""
    difference = ours - theirs
    return Paired(other=other, difference=float(difference.mean()), standard_error=standard_error(difference, groups))


class Evaluator:
    """Out-of-fold triples of sets of members, each computed once; the least recently used of many are forgotten."""

    def __init__(self, names: Sequence[str], p: np.ndarray, y: np.ndarray, folds: np.ndarray, *, kept: int = 400) -> None:
        self.names, self.p, self.y, self.folds = tuple(names), p, y, folds
        self._kept = min(kept, max(20, int(3e8 / max(1, len(y) * 24))))
        self._cache: dict[tuple[tuple[int, ...], BlendSpec], np.ndarray] = {}
        self._lock = threading.Lock()  # trials of a study may run side by side

    def oof(self, subset: Sequence[int], spec: BlendSpec) -> np.ndarray:
        """Out-of-fold triples (rows, 3) of a set under one spec."""
        key = (tuple(sorted(subset)), spec)
        with self._lock:
            table = self._cache.get(key)
        if table is None:
            table = self.fit_rows(key[0], spec, None)
        with self._lock:
            self._cache.pop(key, None)
            self._cache[key] = table  # the most recently used are last
            while len(self._cache) > self._kept:
                self._cache.pop(next(iter(self._cache)))
        return table

    def fit_rows(self, subset: Sequence[int], spec: BlendSpec, seen: np.ndarray | None) -> np.ndarray:
        """As `oof`, by blends fitted to the `seen` rows only."""
        chosen = list(subset)
        return cross_fit(spec, [self.names[j] for j in chosen], self.p[chosen], self.y, self.folds, seen)

    def losses(self, subset: Sequence[int], specs: Sequence[BlendSpec]) -> tuple[np.ndarray, BlendSpec]:
        """Losses (rows,) of a set with the pool chosen by other folds, and the pool that is best on all rows."""
        losses, best = choose_by_other_folds([self.oof(subset, spec) for spec in specs], self.y, self.folds)
        return losses, specs[best]


Progress = Callable[[str], None]
