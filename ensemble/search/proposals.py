"""Propose candidate plans: exact subsets, their neighbours, members on some rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ensemble.search.judging import best_pool, judge, judge_gated, quick_loss
from ensemble.search.problem import Candidate, Problem
from ensemble.search.subsets import EXACT_MEMBERS, Searched, Subset, search_branch_and_bound, search_exactly
from zoo.errors import amount

FINALISTS = 10
COVERAGE_TRIALS = 16
_PAIRS = 6
_CLIMBS = 8


def search_subsets(problem: Problem, available: float) -> Searched:
    """Whole-file subsets within `available` seconds, by the linear pool's exact loss.

    See `ensemble.search.subsets`.
    """
    affordable = problem.prices.affordable(available)
    if len(problem.members.names) <= EXACT_MEMBERS:
        return search_exactly(problem.fitter.true, affordable, fitter=problem.fitter)
    return search_branch_and_bound(problem.fitter.true, affordable, fitter=problem.fitter)


def propose_whole_files(problem: Problem, searched: Searched, others: Iterable[Subset], available: float) -> list[Candidate]:
    """Judged whole-file candidates: finalists of the search, `others`, and what follows.

    What follows are neighbours of the best and what is left of it as it shrinks; `others` are sets worth a look. All of them
    fit in `available` seconds.
    """
    finalists = list(dict.fromkeys([*_finalists(problem, searched), *others]))
    problem.say(f"judging {len(finalists)} of {amount(len(searched.subsets), 'affordable set')} out of fold")
    judged = {subset: judge(problem, subset) for subset in finalists}
    best = min(judged.values(), key=lambda c: c.loss)
    affordable = problem.prices.affordable(available)
    for _ in range(_CLIMBS):  # other pools than the linear one gain from members that the linear one has no use for
        options = filter(affordable, _neighbours(problem, best.whole))
        ranked = sorted(options, key=lambda s: quick_loss(problem, s, best.spec))
        climbed = [judge(problem, subset) for subset in ranked[:3]]
        judged |= {candidate.whole: candidate for candidate in climbed}
        if not climbed or min(c.loss for c in climbed) >= best.loss - 1e-6:
            break
        best = min(climbed, key=lambda c: c.loss)
    judged |= {subset: judge(problem, subset) for subset in _shrinking(problem, best)}
    return list(judged.values())


def _finalists(problem: Problem, searched: Searched) -> list[Subset]:
    """Subsets worth judging: those that no cheaper one beats, and the very best.

    Never all of them, however few the rows: the best of hundreds of noisy losses is the luckiest.
    """
    ranked = [scored.members for scored in searched.subsets]
    front: list[Subset] = []
    cheapest = np.inf
    for subset in ranked:
        seconds = problem.prices.seconds(subset)
        if seconds < cheapest - 1e-9:
            front.append(subset)
            cheapest = seconds
    if len(front) > FINALISTS:  # the best half, the rest evenly
        rest = np.linspace(FINALISTS // 2, len(front) - 1, FINALISTS - FINALISTS // 2).astype(int)
        front = front[: FINALISTS // 2] + [front[i] for i in rest]
    return list(dict.fromkeys([*front, *ranked[:3]]))


def _neighbours(problem: Problem, subset: Subset) -> list[Subset]:
    """Sets with one member more; where members are few also those with one exchanged."""
    others = [j for j in range(len(problem.members.names)) if j not in subset]
    added = [tuple(sorted((*subset, j))) for j in others]
    if len(problem.members.names) > EXACT_MEMBERS:
        return added
    return added + [tuple(sorted((*(k for k in subset if k != left), j))) for left in subset for j in others]


def _shrinking(problem: Problem, best: Candidate) -> Iterator[Subset]:
    """Smaller and smaller sets that lose least, down to two members: what parsimony may prefer."""
    shrinking = best.whole
    while len(shrinking) > 2:
        smaller = [tuple(k for k in shrinking if k != j) for j in shrinking]
        shrinking = min(smaller, key=lambda s: quick_loss(problem, s, best.spec))
        yield shrinking


def propose_coverage(problem: Problem, whole: Sequence[Candidate], available: float) -> list[Candidate]:
    """Judged coverage candidates that grow from whole-file ones.

    One more member on the rows where it pays, then a second.
    """
    everyone = range(len(problem.members.names))
    options: list[tuple[float, Subset, int, float]] = []
    for base in whole:
        options += [one for j in everyone if j not in base.whole and (one := _option(problem, base, j, available))]
    options.sort(key=lambda option: option[0])
    problem.say(f"judging {amount(min(len(options), COVERAGE_TRIALS), 'coverage plan')} out of fold")
    found = [_gated(problem, base, {j: work}) for _, base, j, work in options[:COVERAGE_TRIALS]]
    found = sorted((c for c in found if c.seen), key=lambda c: c.loss)
    pairs = [(c, j) for c in found[:3] for j in everyone if j not in c.members]
    pairs.sort(key=lambda pair: problem.fitter.score((*pair[0].members, pair[1])).loss)
    for base, j in pairs[:_PAIRS]:
        first, seen = next(iter(base.seen.items()))
        if work := problem.prices.shared_work(base.whole, first, seen, j, available):
            pair = _gated(problem, base.whole, work)
            found.append(pair if j in pair.seen else _with_the_rest(problem, pair, available))
    return [
        c for c in found if c.seen and c.seconds <= available
    ]  # who needs no gate runs with the others, by another schedule


def _with_the_rest(problem: Problem, pair: Candidate, available: float) -> Candidate:
    """A pair whose second member turned out to see every row: the first gets all seconds that are left."""
    work = {k: seconds for k in pair.seen if (seconds := problem.prices.gated_work(pair.whole, k, available)) > 0}
    return _gated(problem, pair.whole, work) if work else pair


def _option(problem: Problem, base: Candidate, j: int, available: float) -> tuple[float, Subset, int, float] | None:
    """(estimated loss, base, member, seconds of work) of gating member j.

    None where its seconds are not worth a load.
    """
    work, needed = problem.prices.gated_work(base.whole, j, available), problem.prices.whole_work(j)
    if not 0 < work < needed:
        return None
    gain = problem.fitter.score(base.whole).loss - problem.fitter.score((*base.whole, j)).loss
    return base.loss - gain * (work / needed) ** 0.6, base.whole, j, work  # gates find the better rows first


def _gated(problem: Problem, whole: Subset, work: dict[int, float]) -> Candidate:
    spec = judge(problem, whole).spec
    if len(whole) == 1 or not spec.fitted:  # one member's table as it is says nothing of how to add another
        spec = best_pool(problem)
    return judge_gated(problem, whole, spec, work)
