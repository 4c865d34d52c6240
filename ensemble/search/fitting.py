"""Final fits of a candidate: member order, a blend for every set, the gates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.budget.schedule import makespan, place
from ensemble.members.table import Members
from ensemble.plan import Blend, Gate, Job, Pool
from ensemble.pools.blend import apply_blend, fit_blend
from ensemble.pools.crossfit import named
from ensemble.pools.gate import divergence, fit_gate, predicted_gain, spend
from ensemble.search.chooser import Candidate, Chooser
from ensemble.search.coverage import pattern_rows
from ensemble.search.subsets import Subset
from zoo.scores.tables import log_loss_rows

FALLBACK_ROWS = 20_000  # fallback blends are fitted to at most this many rows
ALL_FALLBACKS = 6  # up to so many members every subset has a blend of its own


@dataclass(frozen=True)
class Fitted:
    """What a plan holds of its candidate.

    `order`: members as they run; `gates`: of the members that do not see every row.
    """

    jobs: tuple[Job, ...]
    order: Subset
    pools: tuple[Pool, ...]
    gates: dict[int, Gate]

    def pool(self, members: Sequence[str], *, planned: bool = False) -> Pool | None:
        """The pool of exactly these members; None where there is none."""
        wanted = frozenset(members)
        return next((pool for pool in self.pools if frozenset(pool.members) == wanted and pool.planned == planned), None)


def fit_candidate(chooser: Chooser, candidate: Candidate, *, fallbacks: bool = True) -> Fitted:
    """Fit `candidate` to all rows of the chooser.

    Without `fallbacks` only what a run without mishap needs.
    """
    jobs = place(chooser.loads(candidate.whole, candidate.seen), chooser.pricing.devices, start_seconds=chooser.overhead)
    order = _run_order(chooser, candidate, jobs)
    pools = tuple(_Pools(chooser.members, candidate, order).all(fallbacks=fallbacks))
    gates = {j: _gate(chooser.members, candidate, j, pools) for j in candidate.seen}
    return Fitted(jobs, order, pools, gates)


def without_idle(chooser: Chooser, candidate: Candidate, fitted: Fitted) -> Candidate:
    """The candidate without members that have no weight in any blend of its rows.

    They would cost seconds and say nothing.

    A logistic pool weighs everyone. A gated member stays where patterns have blends of their own, since it parts the rows.
    """
    names = chooser.members.names
    patterns = pattern_rows(candidate.whole, candidate.seen, len(chooser.members.y))
    weight = dict.fromkeys(candidate.members, 0.0)
    for pattern in patterns:
        pool = fitted.pool([names[j] for j in pattern], planned=True) or fitted.pool([names[j] for j in pattern])
        for j in pattern:
            if pool is None or pool.blend.pool == "logistic":
                weight[j] += 1.0
            else:
                weight[j] += pool.blend.weights[pool.blend.members.index(names[j])]
    idle = {j for j, total in weight.items() if total == 0 and (j in candidate.whole or not candidate.own_blend)}
    whole = tuple(j for j in candidate.whole if j not in idle)
    if not idle or not whole:
        return candidate
    seen = {j: rows for j, rows in candidate.seen.items() if j not in idle}
    seconds = chooser.overhead + makespan(chooser.loads(whole, seen), chooser.pricing.devices)
    own = frozenset(tuple(j for j in pattern if j not in idle) for pattern in candidate.own_blend)
    work = {j: candidate.work[j] for j in seen}
    return replace(candidate, whole=whole, seen=seen, own_blend=own, work=work, seconds=seconds)


def carry_out(
    fitted: Fitted, candidate: Candidate, members: Members, row_seconds: np.ndarray, work_seconds: dict[int, float]
) -> np.ndarray:
    """Triples (rows, 3) that the fitted candidate gives the rows of `members`.

    They are those of `ensemble predict` when nothing fails.

    Gated members take the rows of most predicted gain a second until their `work_seconds` are spent; `row_seconds` (members,
    rows). Labels are not looked at.
    """
    rows = len(members.y)
    patterns = {tuple(sorted(candidate.whole)): np.ones(rows, dtype=bool)}
    seen: dict[int, np.ndarray] = {}
    for j, gate in fitted.gates.items():
        before = _apply(fitted, members, patterns, planned=False)
        gain = predicted_gain(gate, before, members.characters)
        seen[j] = spend(gain, row_seconds[j], work_seconds[j])
        patterns = pattern_rows(candidate.whole, seen, rows)
    return _apply(fitted, members, patterns, planned=True)


def _apply(fitted: Fitted, members: Members, patterns: dict[Subset, np.ndarray], *, planned: bool) -> np.ndarray:
    out = np.empty((len(members.y), 3))
    for pattern, rows in patterns.items():
        names = [members.names[j] for j in pattern]
        pool = (fitted.pool(names, planned=True) if planned else None) or fitted.pool(names)
        if pool is None:
            raise AssertionError(f"no blend of {', '.join(names)}")
        out[rows] = apply_blend(pool.blend, named(names, members.p[list(pattern)][:, rows]))
    return out


def _run_order(chooser: Chooser, candidate: Candidate, jobs: Sequence[Job]) -> Subset:
    """Members by the start of their first job; of one job, the one with the most nats a second first."""
    start = {name: min(job.start_seconds for job in jobs if name in job.members) for job in jobs for name in job.members}
    phase = {name: job.phase for job in jobs for name in job.members}
    value = {j: chooser.fitter.score((j,)).loss for j in candidate.members}
    names = chooser.members.names
    return tuple(sorted(candidate.members, key=lambda j: (phase[names[j]], start[names[j]], value[j])))


class _Pools:
    """Blends of a plan: of all members, of each coverage pattern, and of what may be left when members fail or are late."""

    def __init__(self, members: Members, candidate: Candidate, order: Subset) -> None:
        self.members, self.candidate, self.order = members, candidate, order

    def all(self, *, fallbacks: bool) -> list[Pool]:
        """All of them, those of exactly a pattern's rows first."""
        whole, seen, n_rows = self.candidate.whole, self.candidate.seen, len(self.members.y)
        patterns = pattern_rows(whole, seen, n_rows)
        pools = [
            self._pool(pattern, rows, planned=True) for pattern, rows in patterns.items() if pattern in self.candidate.own_blend
        ]
        gated = list(seen)
        reached = [tuple(sorted((*whole, *s))) for size in range(len(gated) + 1) for s in itertools.combinations(gated, size)]
        needed = {tuple(sorted(self.order)), *patterns}
        if fallbacks:
            needed |= {tuple(sorted(self.order[:k])) for k in range(1, len(self.order) + 1)}
        few = np.arange(n_rows) % -(-n_rows // FALLBACK_ROWS) == 0
        everything = np.ones(n_rows, dtype=bool)
        subsets = [*(fallback_subsets(self.order) if fallbacks else ()), *reached]
        for key in dict.fromkeys(tuple(sorted(subset)) for subset in subsets):
            pools.append(self._pool(key, everything if key in needed or not fallbacks else few, planned=False))
        return pools

    def _pool(self, subset: Subset, rows: np.ndarray, *, planned: bool) -> Pool:
        members = self.members
        ordered = [j for j in self.order if j in subset]
        names, p, y = [members.names[j] for j in ordered], members.p[ordered][:, rows], members.y[rows]
        blend = fit_blend(self.candidate.spec, names, p, y)
        losses = log_loss_rows(apply_blend(blend, named(names, p)), y)
        share = float(rows.mean()) if planned else 1.0
        return Pool(members=tuple(names), planned=planned, blend=blend, rows_fraction=share, log_loss=float(losses.mean()))


def fallback_subsets(order: Subset) -> list[Subset]:
    """Sets of members that need a blend of their own.

    These are all sets if there are few, else prefixes, leave-one-out and singles.
    """
    if len(order) <= ALL_FALLBACKS:
        return [s for size in range(len(order), 0, -1) for s in itertools.combinations(order, size)]
    prefixes = [order[:k] for k in range(len(order), 0, -1)]
    without_one = [tuple(j for j in order if j != left) for left in order]
    return list(dict.fromkeys([*prefixes, *without_one, *((j,) for j in order)]))


def _gate(members: Members, candidate: Candidate, j: int, pools: Sequence[Pool]) -> Gate:
    """The gate of member j, fitted to all rows by the blends of all rows that `ensemble predict` will feed it."""
    gated = list(candidate.seen)
    before = {k: candidate.seen[k] for k in gated[: gated.index(j)]}
    blends: dict[frozenset[str], Blend] = {frozenset(pool.members): pool.blend for pool in pools if not pool.planned}
    p, gain = np.empty((len(members.y), 3)), np.empty(len(members.y))
    for pattern, rows in pattern_rows(candidate.whole, before, len(members.y)).items():
        names = [members.names[k] for k in (*pattern, j)]
        tables = named(names, members.p[[*pattern, j]][:, rows])
        p[rows] = apply_blend(blends[frozenset(names[:-1])], tables)
        gain[rows] = divergence(apply_blend(blends[frozenset(names)], tables), p[rows])
    given = tuple(members.names[k] for k in (*candidate.whole, *before))
    return fit_gate(given, p, members.characters, gain)
