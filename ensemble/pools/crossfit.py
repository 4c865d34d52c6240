"""Out-of-fold log loss of blends, by folds grouped by prompt."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from pandas import factorize

from ensemble.plan import Blend, Paired
from ensemble.pools.blend import AS_IS, BlendSpec, apply_blend, fit_blend
from ensemble.pools.trees import rows_of
from zoo.scores.metrics import log_loss_rows, mean_and_error

DEFAULT_SPECS: dict[str, BlendSpec] = {
    "as is": AS_IS,
    "linear": BlendSpec("linear"),
    "log": BlendSpec("log", floor=1e-2),
    "logistic": BlendSpec("logistic", 1e-4, floor=1e-2),
}


def named(names: Sequence[str], p: np.ndarray) -> dict[str, np.ndarray]:
    """Tables (members, rows, 3) under their names."""
    return dict(zip(names, p, strict=True))


def cross_fit(
    spec: BlendSpec,
    names: Sequence[str],
    p: np.ndarray,
    y: np.ndarray,
    folds: np.ndarray,
    seen: np.ndarray | None = None,
    prompts: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Triples (rows, 3) of each fold's rows by a blend fitted to the other folds' rows.

    Of these only the `seen` ones, where given. `prompts` (rows,), for folds that part prompts: see `rows_beside`. `lengths`
    (rows, 3) of the texts, for trees.
    """
    out = np.empty((len(y), 3))
    start: Blend | None = None
    for fold in np.unique(folds):
        held, beside = np.flatnonzero(folds == fold), rows_beside(folds == fold, prompts)
        fitting = np.flatnonzero(beside if seen is None else beside & seen)
        theirs, own = rows_of(lengths, fitting), rows_of(lengths, held)
        start = fit_blend(spec, names, np.take(p, fitting, axis=1), y[fitting], theirs, start=start)
        out[held] = apply_blend(start, named(names, np.take(p, held, axis=1)), own)
    return out


def rows_beside(held: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
    """The other rows, bool (rows,): those to fit to where the `held` ones are judged.

    Without those of a held row's prompt, where `prompts` are given: a prompt may lie in two groups of battles.
    """
    beside: np.ndarray = ~held if prompts is None else ~np.isin(prompts, prompts[held])
    return beside


def choose_by_other_folds(tables: Sequence[np.ndarray], y: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, int]:
    """Losses where each fold takes the table that is best on the other folds.

    `tables`: out of fold, each (rows, 3). Returns the losses (rows,) of that, and which table is best on all rows. The choice
    is never made on the rows it is judged on, though the fits it is between have seen the other folds.
    """
    return choose_losses(np.stack([log_loss_rows(table, y) for table in tables]), folds)


def choose_losses(losses: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, int]:
    """As `choose_by_other_folds`, of losses (tables, rows)."""
    fold_of = factorize(folds)[0]
    sums = np.stack([np.bincount(fold_of, weights=table) for table in losses])
    totals = sums.sum(axis=1)
    best = (totals[:, None] - sums).argmin(axis=0)  # by fold, of all others' rows
    return losses[best[fold_of], np.arange(len(folds))], int(totals.argmin())


def paired(other: str, ours: np.ndarray, theirs: np.ndarray, groups: np.ndarray) -> Paired:
    """Ours against another's losses row by row: mean difference and its standard error."""
    difference, error = mean_and_error(ours - theirs, groups)
    return Paired(other=other, difference=difference, standard_error=error)


class Evaluator:
    """Out-of-fold triples of sets of members, each computed once.

    The least recently used of many are forgotten. `prompts` as `cross_fit` takes them.
    """

    def __init__(
        self,
        names: Sequence[str],
        p: np.ndarray,
        y: np.ndarray,
        folds: np.ndarray,
        *,
        prompts: np.ndarray | None = None,
        kept: int = 400,
    ) -> None:
        self.names, self.p, self.y, self.folds, self.prompts = tuple(names), p, y, folds, prompts
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
        return cross_fit(spec, [self.names[j] for j in chosen], self.p[chosen], self.y, self.folds, seen, self.prompts)

    def losses(self, subset: Sequence[int], specs: Sequence[BlendSpec]) -> tuple[np.ndarray, BlendSpec]:
        """Losses (rows,) of a set with the pool that other folds choose, and the best one overall."""
        losses, best = choose_by_other_folds([self.oof(subset, spec) for spec in specs], self.y, self.folds)
        return losses, specs[best]
