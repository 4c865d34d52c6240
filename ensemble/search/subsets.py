"""The best affordable subset for the linear pool, exactly or by branch and bound.

Adding a member never hurts on the fitting rows, so a set's loss bounds those of all its subsets from below; and a member
with weight zero can be left out of a set at no loss, which spares most fits.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ensemble.pools.linear import SMALLEST, LinearFit, fit_rows, newton_target

EXACT_MEMBERS = 13
_TOLERANCE = 1e-6
_THREADS = 2

Subset = tuple[int, ...]
Affordable = Callable[[Subset], bool]


@dataclass(frozen=True)
class Scored:
    """In-sample log loss and weights of the linear pool of a subset.

    `weights` (all members and the uniform triple), zero outside; `gradient` and `hessian` over the same, NaN or None where
    unknown: what other fits start from.
    """

    members: Subset
    loss: float
    weights: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray | None = None


@dataclass(frozen=True)
class Searched:
    """Affordable subsets with their losses, best first.

    No affordable subset has a loss below `lower_bound`.
    """

    subsets: tuple[Scored, ...]
    lower_bound: float
    fits: int
    seconds: float
    method: str


class Fitter:
    """Fits of the linear pool on subsets, each at most once, started from what is known.

    `true` (members, rows): probabilities of the true label, of which there are `outcomes`. The uniform triple is a member that
    costs nothing and is always there, as in `ensemble.pools.blend`.
    """

    def __init__(self, true: np.ndarray, *, outcomes: int = 3, tolerance: float = _TOLERANCE) -> None:
        self.true = true
        self.members = len(true)
        self.fits = 0
        self._p = [*np.maximum(true, SMALLEST), np.full(true.shape[1], 1 / outcomes)]
        self._tolerance = tolerance
        self._known: dict[Subset, Scored] = {}

    def score(self, subset: Iterable[int], *, near: Scored | None = None) -> Scored:
        """The best linear pool of a subset; `near`: a fit whose weights are a good start."""
        key = tuple(sorted(subset))
        known = self._known.get(key) or self._inherit(key)
        if known is None:
            known = self._fit(key, near or self._nearest_parent(key))
            self.fits += 1
        self._known[key] = known
        return known

    def _parents(self, key: Subset) -> Iterable[tuple[int, Scored]]:
        for j in range(self.members):
            if j not in key:
                parent = self._known.get(tuple(sorted((*key, j))))
                if parent is not None:
                    yield j, parent

    def _inherit(self, key: Subset) -> Scored | None:
        """A known set with one member more, whose weight there is zero, has the same best pool."""
        parent = next((parent for j, parent in self._parents(key) if parent.weights[j] == 0), None)
        return replace(parent, members=key) if parent else None

    def _nearest_parent(self, key: Subset) -> Scored | None:
        return min(self._parents(key), key=lambda item: item[1].weights[item[0]], default=(0, None))[1]

    def _fit(self, key: Subset, near: Scored | None) -> Scored:
        index = np.array([*key, self.members])
        start = None if near is None else self._start(index, near)
        fit: LinearFit = fit_rows([self._p[j] for j in index], start=start, tolerance=self._tolerance)
        weights, gradient = np.zeros(self.members + 1), np.full(self.members + 1, np.nan)
        weights[index], gradient[index] = fit.weights, fit.gradient
        hessian = near.hessian if near is not None else None  # of weights not far away, which is enough for a start
        if fit.hessian is not None:
            hessian = np.zeros((self.members + 1, self.members + 1))
            hessian[np.ix_(index, index)] = fit.hessian
        return Scored(key, fit.loss, weights, gradient, hessian)

    def _start(self, index: np.ndarray, near: Scored) -> np.ndarray | None:
        """Where the quadratic model around a near fit is least within the subset.

        Else that fit's own weights.
        """
        known = np.isfinite(near.gradient)
        if near.hessian is not None and known[index].all():
            has_curvature = np.diag(near.hessian)[index] > 0
            if (near.weights[index[~has_curvature]] == 0).all():
                target = newton_target(near.hessian, np.where(known, near.gradient, 0.0), near.weights, index[has_curvature])
                if target.sum() > 0.2:
                    return np.asarray(target[index] / target.sum())
        start = near.weights[index]
        return start / start.sum() if start.sum() > 0.2 else None


def search_exactly(true: np.ndarray, affordable: Affordable, *, fitter: Fitter | None = None) -> Searched:
    """Every affordable subset with its exact fit, largest first; two threads share each size."""
    started, fitter = time.monotonic(), fitter or Fitter(true)
    found: list[Scored] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for size in range(len(true), 0, -1):
            level = [s for s in itertools.combinations(range(len(true)), size) if affordable(s)]
            try:
                found += pool.map(fitter.score, level)
            except BaseException:  # Ctrl-C, which would wait for the rest of the level
                pool.shutdown(cancel_futures=True)
                raise
    found.sort(key=lambda s: (s.loss, len(s.members), s.members))
    bound = found[0].loss if found else np.inf
    return Searched(tuple(found), bound, fitter.fits, time.monotonic() - started, "all subsets")


def search_branch_and_bound(
    true: np.ndarray, affordable: Affordable, *, timeout_seconds: float = 60.0, gap: float = 1e-5, fitter: Fitter | None = None
) -> Searched:
    """Best-first branch and bound over affordable subsets.

    A node keeps some members, excludes others, and is bounded by all that is not excluded. Members that no longer fit beside
    the kept ones are excluded at once. Where the bound's own support is affordable the node is solved; else the search branches
    on the heaviest undecided member, which is kept, or excluded. Stops when the best found is within `gap` of the least open
    bound, or at the timeout, and reports that bound.
    """
    started, fitter = time.monotonic(), fitter or Fitter(true)
    everyone = tuple(range(len(true)))
    found: dict[Subset, Scored] = {}
    order = itertools.count()
    heap: list[tuple[float, int, Subset, Subset, Scored]] = []

    def push(kept: Subset, open_members: Subset, near: Scored | None) -> None:
        allowed = tuple(j for j in open_members if affordable(tuple(sorted((*kept, j)))))
        if kept or allowed:
            scored = fitter.score((*kept, *allowed), near=near)
            heapq.heappush(heap, (scored.loss, next(order), kept, allowed, scored))

    def note(scored: Scored) -> None:
        if scored.members and affordable(scored.members):
            found[scored.members] = scored

    push((), everyone, None)
    best, bound = np.inf, heap[0][0] if heap else np.inf
    while heap:
        bound = heap[0][0]
        if bound >= best - gap or time.monotonic() - started > timeout_seconds:
            break
        _, _, kept, allowed, relaxed = heapq.heappop(heap)
        support = tuple(j for j in (*kept, *allowed) if relaxed.weights[j] > 0)
        if not support or affordable(tuple(sorted(support))):
            note(fitter.score(support or (*kept, *allowed)[:1], near=relaxed))
        else:
            note(_round(fitter, relaxed, kept, allowed, affordable))
            heaviest = max(allowed, key=lambda j: relaxed.weights[j])
            rest = tuple(j for j in allowed if j != heaviest)
            push((*kept, heaviest), rest, relaxed)
            push(kept, rest, relaxed)
        best = min((s.loss for s in found.values()), default=np.inf)
    bound = min(best, bound if heap else best)
    ranked = tuple(sorted(found.values(), key=lambda s: (s.loss, len(s.members), s.members)))
    return Searched(ranked, bound, fitter.fits, time.monotonic() - started, "branch and bound")


def _round(fitter: Fitter, relaxed: Scored, kept: Subset, allowed: Subset, affordable: Affordable) -> Scored:
    """An affordable set from a relaxed one: its members by weight, each taken if it still fits."""
    chosen = kept
    for j in sorted(allowed, key=lambda j: -relaxed.weights[j]):
        if relaxed.weights[j] > 0 and affordable(tuple(sorted((*chosen, j)))):
            chosen = (*chosen, j)
    return fitter.score(chosen, near=relaxed) if chosen else replace(relaxed, members=(), loss=np.inf)
