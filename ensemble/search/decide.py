"""Find the candidates at a budget: what needs no search, and the best that the search has.

`build`, `frontier` and each fold of `rehearse` call it; it calls `simple`, `proposals` and `judging`. Which of the candidates
is taken is the rehearsal's to say, see `contest`; what a study adds to them, see `challenge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ensemble.plan import Bound, PoolKind
from ensemble.search.by_folds import candidates_by_folds
from ensemble.search.judging import judge_gated_by_folds
from ensemble.search.problem import Candidate, Problem
from ensemble.search.proposals import propose_coverage, propose_whole_files, search_subsets
from ensemble.search.robust import AskedGroups
from ensemble.search.simple import BEST_SINGLES, LOG_POOL, simple_candidates, single_candidates
from ensemble.search.subsets import Searched
from zoo.errors import amount
from zoo.scores.metrics import standard_error
from zoo.targets import Target
from zoo.tracking.spans import span

SEARCH, CHEAPER, COVERAGE = "search", "cheaper_search", "coverage"
JUDGED_AGAIN = 6  # coverage plans that are judged with the pool chosen by other folds
REFINED, AS_GOOD_NATS = 3, 0.002  # how many sets are judged by every pool, and how near they must look
DEFAULT_TRIALS = 50
LEAST_SAVING = 0.05  # a plan that is cheaper by less is not worth any log loss


@dataclass(frozen=True)
class SearchLimits:
    """How long to study: trials in all, seconds, threads.

    `storage`: the SQLite file, None for memory.
    """

    trials: int = DEFAULT_TRIALS
    timeout_seconds: float | None = 120.0
    n_jobs: int = 1
    storage: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class BuildRequest:
    """What `ensemble build` was asked."""

    target: Target
    budget_seconds: float
    rows: int
    margin: float | None = None
    lengths: Path | None = None
    parsimony: bool = False
    coverage: bool = True
    position_bias: bool = False
    pools: tuple[PoolKind, ...] = ()
    limits: SearchLimits = field(default_factory=SearchLimits)
    robust: AskedGroups | None = None


@dataclass(frozen=True)
class Found:
    """What there is to choose from at a budget.

    `candidates` by name, the simplest first: those of `simple`; SEARCH, the best of the search in which every member sees every
    row; CHEAPER, with parsimony, the cheapest that looks as good as the best; COVERAGE, the best with gates, where it looks
    better than SEARCH. `considered`: all that the search judged. `bound`: how far the search can be from the best. `singles`:
    candidates too, every member alone.
    """

    candidates: dict[str, Candidate]
    considered: tuple[Candidate, ...]
    bound: Bound
    singles: dict[str, Candidate] = field(default_factory=dict)

    @property
    def everything(self) -> dict[str, Candidate]:
        """All candidates by name, the simplest first.

        The best single ones come before all single ones.
        """
        best = {name: self.candidates[name] for name in BEST_SINGLES if name in self.candidates}
        return best | self.singles | self.candidates


def find_candidates(problem: Problem, request: BuildRequest, available: float) -> Found:
    """The candidates within `available` seconds (the budget without its margin)."""
    problem.say(f"searching subsets of {amount(len(problem.members.names), 'member')}")
    with span("subsets") as searching:
        searched = search_subsets(problem, available)
        searching.attributes |= {"subsets": len(searched.subsets), "method": searched.method}
    with span("simple candidates") as trying:
        candidates = simple_candidates(problem, available)
        trying.attributes["candidates"] = len(candidates)
    with span("judging whole files") as judging:
        whole = propose_whole_files(problem, searched, [c.whole for c in candidates.values()], available)
        best = min(whole, key=lambda c: (c.loss, c.seconds))
        candidates[SEARCH] = refine(problem, best, whole)
        judging.attributes["candidates"] = len(whole)
    with span("pools by folds"):
        candidates |= candidates_by_folds(problem, [candidates[LOG_POOL].whole, candidates[SEARCH].whole])
    covered = _covered(problem, whole, available) if request.coverage and len(problem.members.names) > 1 else []
    if request.parsimony and (cheaper := cheapest_as_good([*whole, *covered], problem.members.groups)):
        candidates[CHEAPER] = cheaper if cheaper.seen else refine(problem, cheaper, ())
    if covered and min(c.loss for c in covered) <= best.loss:
        candidates[COVERAGE] = min(covered, key=lambda c: (c.loss, c.seconds))
    return Found(candidates, (*whole, *covered), _bound(searched), single_candidates(problem, available))


def _covered(problem: Problem, whole: Sequence[Candidate], available: float) -> list[Candidate]:
    """The best coverage plans, judged by folds, those that fit and have a gate on every member that needs one."""
    with span("judging coverage") as judging:
        proposed = propose_coverage(problem, sorted(whole, key=lambda c: c.loss)[:6], available)
        judged = [judge_gated_by_folds(problem, c) for c in finalists(proposed)]
        judging.attributes |= {"candidates": len(proposed), "finalists": len(judged)}
    return [c for c in judged if c.seconds <= available and c.seen and all(seen.any() for seen in c.seen.values())]


def finalists(proposed: Sequence[Candidate]) -> list[Candidate]:
    """The coverage plans to judge again, the best first, each once, whatever its pools."""
    kept: dict[object, Candidate] = {}
    for candidate in sorted(proposed, key=lambda c: (c.loss, c.seconds)):
        kept.setdefault((candidate.whole, tuple(sorted((j, round(s)) for j, s in candidate.work.items()))), candidate)
    return list(kept.values())[:JUDGED_AGAIN]


def cheapest_as_good(candidates: Sequence[Candidate], groups: np.ndarray) -> Candidate | None:
    """The cheapest candidate within one standard error of the best.

    The error is that of the paired difference. None where none is cheaper.
    """
    best = min(candidates, key=lambda c: (c.loss, c.seconds))
    near = [c for c in candidates if c.seconds <= best.seconds * (1 - LEAST_SAVING)]
    within = [c for c in near if c.loss - best.loss <= standard_error(c.losses - best.losses, groups)]
    return min(within, key=lambda c: (c.seconds, c.loss), default=None)


def refine(problem: Problem, best: Candidate, considered: Sequence[Candidate]) -> Candidate:
    """The best whole-file set of those that looked as good as `best`, by every pool.

    The first judgement tried a few pools.
    """
    near = [c for c in considered if c.loss <= best.loss + AS_GOOD_NATS]
    sets = {c.whole: c for c in (best, *sorted(near, key=lambda c: c.loss))}
    few = problem.thinned()
    judged = [(c, *few.evaluator.losses(c.whole, few.all_specs)) for c in list(sets.values())[:REFINED]]
    refined, _, spec = min(judged, key=lambda item: float(item[1].mean()))
    return replace(refined, spec=spec)


def _bound(searched: Searched) -> Bound:
    found = searched.subsets[0].loss
    lower = min(searched.lower_bound, found)
    return Bound(
        found=found,
        lower_bound=lower,
        gap=found - lower,
        method=searched.method,
        subsets=len(searched.subsets),
        seconds=searched.seconds,
    )
