"""Final fits of a candidate: member order, a blend for every set, the gates.

`assemble` calls it for the plan on all rows, `rehearse` for each fold on the rows of the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.budget.schedule import place
from ensemble.members.table import Members
from ensemble.plan import Blend, Gate, Job, Pool
from ensemble.pools.blend import apply_blend, fit_blend
from ensemble.pools.crossfit import named
from ensemble.pools.gate import divergence, fit_gate, mask_of, spend
from ensemble.pools.patterns import blend_for, blend_rows, gated_gain
from ensemble.pools.trees import rows_of
from ensemble.search.coverage import pattern_rows
from ensemble.search.problem import Candidate, Problem
from ensemble.search.subsets import Subset
from zoo.scores.metrics import log_loss_rows

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


def fit_candidate(problem: Problem, candidate: Candidate, *, fallbacks: bool = True) -> Fitted:
    """Fit `candidate` to all rows of the problem.

    Without `fallbacks` only what a run without mishap needs.
    """
    prices = problem.prices
    loads = prices.pricing.likely.loads(candidate.whole, list(candidate.seen.items()))
    jobs = place(loads, prices.pricing.devices, start_seconds=prices.overhead)
    order = _run_order(problem, candidate, jobs)
    pools = tuple(_Pools(problem.members, candidate, order).all(fallbacks=fallbacks))
    gates = {j: _gate(problem.members, candidate, j, pools) for j in candidate.seen}
    return Fitted(jobs, order, pools, gates)


def without_idle(problem: Problem, candidate: Candidate, fitted: Fitted) -> Candidate:
    """The candidate without members that have no weight in any blend of its rows.

    They would cost seconds and say nothing. Only linear and log pools have members without weight. A gated member stays where
    patterns have blends of their own, since it parts the rows.
    """
    names = problem.members.names
    patterns = pattern_rows(candidate.whole, candidate.seen, len(problem.members.y))
    weight = dict.fromkeys(candidate.members, 0.0)
    for pattern in patterns:
        blend = blend_for(fitted.pools, frozenset(names[j] for j in pattern))
        for j in pattern:
            if blend is None or blend.pool not in ("linear", "log"):
                weight[j] += 1.0
            else:
                weight[j] += blend.weights[blend.members.index(names[j])]
    idle = {j for j, total in weight.items() if total == 0 and (j in candidate.whole or not candidate.own_blend)}
    whole = tuple(j for j in candidate.whole if j not in idle)
    if not idle or not whole:
        return candidate
    seen = {j: rows for j, rows in candidate.seen.items() if j not in idle}
    own = frozenset(tuple(j for j in pattern if j not in idle) for pattern in candidate.own_blend)
    work = {j: candidate.work[j] for j in seen}
    return replace(candidate, whole=whole, seen=seen, own_blend=own, work=work, seconds=problem.prices.seconds(whole, seen))


def carry_out(
    fitted: Fitted, candidate: Candidate, members: Members, row_seconds: np.ndarray, work_seconds: dict[int, float]
) -> np.ndarray:
    """Triples (rows, 3) of the rows of `members`, as `ensemble predict` gives them.

    It assumes a run without mishap. Gated members take the rows of most predicted gain a second until their `work_seconds` are
    spent; `row_seconds` (members, rows). Labels are not looked at.
    """
    tables, rows = named(members.names, members.p), len(members.y)
    has = _reach(members, candidate.whole, {})
    for j, gate in fitted.gates.items():
        gain = gated_gain(gate, fitted.pools, tables, has, members.characters, otherwise=0.0)
        order, count = spend(gain, row_seconds[j], work_seconds[j])
        has[members.names[j]] = mask_of(order[:count], rows)
    blended = blend_rows(fitted.pools, tables, has, as_planned=np.ones(rows, dtype=bool), lengths=members.lengths)
    assert blended.made.all(), "a row without a blend: its members' pools were not fitted"
    return blended.p


def _reach(members: Members, whole: Subset, seen: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows, bool (rows,), that each member sees, by its name."""
    everything = np.ones(len(members.y), dtype=bool)
    return {members.names[j]: everything for j in whole} | {members.names[j]: rows for j, rows in seen.items()}


def _run_order(problem: Problem, candidate: Candidate, jobs: Sequence[Job]) -> Subset:
    """Members by the start of their first job; of one job, the best one first."""
    start = {name: min(job.start_seconds for job in jobs if name in job.members) for job in jobs for name in job.members}
    phase = {name: job.phase for job in jobs for name in job.members}
    value = {j: problem.fitter.score((j,)).loss for j in candidate.members}
    names = problem.members.names
    return tuple(sorted(candidate.members, key=lambda j: (phase[names[j]], start[names[j]], value[j])))


class _Pools:
    """Blends of a plan: of all members, of coverage patterns, and of what mishaps may leave.

    A pool that is made of others, as trees are, is fitted for all members; mishaps get its first part, which is quick to fit
    and small to keep.
    """

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
        spec = self.candidate.spec
        lengths = rows_of(members.lengths, rows)
        blend = fit_blend(spec if len(subset) == len(self.order) else spec.base, names, p, y, lengths)
        losses = log_loss_rows(apply_blend(_plain(blend), named(names, p)), y)
        share = float(rows.mean()) if planned else 1.0
        return Pool(members=tuple(names), planned=planned, blend=blend, rows_fraction=share, log_loss=float(losses.mean()))


def _plain(blend: Blend) -> Blend:
    """The blend, or its first part: by that the losses of pools are compared, since trees flatter on their own rows."""
    return _plain(blend.parts[0]) if blend.parts else blend


def fallback_subsets(order: Subset) -> list[Subset]:
    """Sets of members that need a blend of their own.

    All sets where members are few, else prefixes, leave-one-out and singles.
    """
    if len(order) <= ALL_FALLBACKS:
        return [s for size in range(len(order), 0, -1) for s in itertools.combinations(order, size)]
    prefixes = [order[:k] for k in range(len(order), 0, -1)]
    without_one = [tuple(j for j in order if j != left) for left in order]
    return list(dict.fromkeys([*prefixes, *without_one, *((j,) for j in order)]))


def _gate(members: Members, candidate: Candidate, j: int, pools: Sequence[Pool]) -> Gate:
    """The gate of member j, fitted to all rows.

    It learns from the blends of all rows that `ensemble predict` will feed it.
    """
    gated = list(candidate.seen)
    has = _reach(members, candidate.whole, {k: candidate.seen[k] for k in gated[: gated.index(j)]})
    fuller = has | {members.names[j]: np.ones(len(members.y), dtype=bool)}
    tables, not_planned = named(members.names, members.p), np.zeros(len(members.y), dtype=bool)
    before, after = (
        blend_rows(pools, tables, reach, as_planned=not_planned, lengths=members.lengths).p for reach in (has, fuller)
    )
    return fit_gate(tuple(has), before, members.characters, divergence(after, before))
