"""Decide which candidate to take at a budget, by search and out-of-fold judging.

`build`, `frontier` and each fold of `rehearse` call it; it calls `proposals` and `judging`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ensemble.budget.duration import format_seconds
from ensemble.plan import Bound
from ensemble.search.judging import judge, judge_gated_by_folds
from ensemble.search.problem import Candidate, Problem
from ensemble.search.proposals import propose_coverage, propose_whole_files, search_subsets
from ensemble.search.subsets import EXACT_MEMBERS, Searched
from ensemble.search.with_optuna import SearchLimits, search_with_optuna
from zoo.scores.metrics import standard_error
from zoo.targets import Target

JUDGED_AGAIN = 6  # candidates of a search that are judged with the pool chosen by other folds
REFINED, AS_GOOD_NATS = 3, 0.002  # how many sets are judged by every pool, and how near they must look
LEAST_SAVING = 0.05  # a plan that is cheaper by less is not worth any log loss


@dataclass(frozen=True)
class BuildRequest:
    """What `ensemble build` was asked."""

    target: Target
    budget_seconds: float
    rows: int
    margin: float | None = None
    lengths: Path | None = None
    parsimony: bool = True
    coverage: bool = True
    position_bias: bool = False
    limits: SearchLimits = field(default_factory=SearchLimits)


@dataclass(frozen=True)
class Choice:
    """What was chosen at a budget, from what, and how far it can be from the best.

    `whole_file`: the candidate itself, or what would be taken without coverage plans.
    """

    candidate: Candidate
    why: str
    whole_file: Candidate
    whole_why: str
    considered: tuple[Candidate, ...]
    bound: Bound


def decide(problem: Problem, request: BuildRequest, available: float, *, trials: bool = True) -> Choice:
    """The best candidate within `available` seconds (the budget without its margin).

    Without `trials` Optuna has no say.
    """
    problem.say(f"searching subsets of {len(problem.members.names)} members")
    searched = search_subsets(problem, available)
    whole = propose_whole_files(problem, searched, available)
    covered: list[Candidate] = []
    method = searched.method
    if trials and len(problem.members.names) > EXACT_MEMBERS:
        study = search_with_optuna(problem, available, searched, request.limits, coverage=request.coverage)
        sets = dict.fromkeys(c.whole for c in study.candidates if not c.seen)
        whole += [judge(problem, subset) for subset in list(sets)[:JUDGED_AGAIN]]  # a trial's pool was chosen on all rows
        covered += [c for c in study.candidates if c.seen]
        method += f", then {study.trials} Optuna trials"
    if request.coverage and len(problem.members.names) > 1:
        covered += propose_coverage(problem, sorted(whole, key=lambda c: c.loss)[:6], available)
        covered = [judge_gated_by_folds(problem, c) for c in sorted(covered, key=lambda c: c.loss)[:JUDGED_AGAIN]]
        covered = [c for c in covered if c.seconds <= available and all(seen.any() for seen in c.seen.values())]
    return choose(whole, covered, problem.members.groups, _bound(searched, method), parsimony=request.parsimony)


def choose(
    whole: Sequence[Candidate], covered: Sequence[Candidate], groups: np.ndarray, bound: Bound, *, parsimony: bool
) -> Choice:
    """The candidate to take of whole-file and coverage plans that were judged alike."""
    best_whole, why = best_of(whole, groups, parsimony=parsimony)
    chosen, chosen_why = best_of([*whole, *covered], groups, parsimony=parsimony)
    # What whole-file plans would be without coverage is the floor: parsimony may not trade its loss for seconds, and coverage
    # plans that are not taken have no say in it.
    if not chosen.seen or chosen.loss > best_whole.loss:
        chosen, chosen_why = best_whole, why
    return Choice(chosen, chosen_why, best_whole, why, (*whole, *covered), bound)


def best_of(candidates: Sequence[Candidate], groups: np.ndarray, *, parsimony: bool) -> tuple[Candidate, str]:
    """The best candidate and why.

    It has the least loss, or with `parsimony` is the cheapest within one standard error of the paired difference.
    """
    best = min(candidates, key=lambda c: (c.loss, c.seconds))
    if not parsimony:
        return best, "least log loss out of fold"
    near = [c for c in candidates if c.seconds <= best.seconds * (1 - LEAST_SAVING)]
    within = [c for c in near if c.loss - best.loss <= standard_error(c.losses - best.losses, groups)]
    if not within:
        return best, "least log loss out of fold; no plan that is 5 % cheaper is within one standard error of it"
    chosen = min(within, key=lambda c: (c.seconds, c.loss))
    error = standard_error(chosen.losses - best.losses, groups)
    return chosen, (
        f"the cheapest plan within one standard error of the best: {chosen.loss - best.loss:+.5f} +- {error:.5f} nats against "
        f"a plan of {format_seconds(best.seconds)}; --no-parsimony takes that one"
    )


def refine(problem: Problem, choice: Choice) -> Choice:
    """The best whole-file set of those that looked alike, once every pool is tried on them.

    Considered are sets that cost no more than the chosen one and looked as good. The first judgement tried a few pools.
    """
    first = choice.whole_file
    near = [c for c in choice.considered if not c.seen and c.seconds <= first.seconds and c.loss <= first.loss + AS_GOOD_NATS]
    finalists = {c.whole: c for c in (first, *sorted(near, key=lambda c: c.loss))}
    few = problem.thinned()
    judged = [(c, *few.evaluator.losses(c.whole, few.all_specs)) for c in list(finalists.values())[:REFINED]]
    best, _, spec = min(judged, key=lambda item: float(item[1].mean()))
    refined, why = replace(best, spec=spec), choice.whole_why
    if best.whole != first.whole:
        why += f"; of {len(judged)} sets that looked as good at no more seconds, the best once every pool was tried"
    if choice.candidate.seen:
        return replace(choice, whole_file=refined, whole_why=why)
    return replace(choice, candidate=refined, why=why, whole_file=refined, whole_why=why)


def _bound(searched: Searched, method: str) -> Bound:
    found = searched.subsets[0].loss
    lower = min(searched.lower_bound, found)
    return Bound(
        found=found,
        lower_bound=lower,
        gap=found - lower,
        method=method,
        subsets=len(searched.subsets),
        seconds=searched.seconds,
    )
