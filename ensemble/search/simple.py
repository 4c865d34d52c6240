"""What needs no search: single members, equal weights, greedy selection, ridged pools.

They are candidates like those of the search, of members that fit the budget together, and stand beside the plan as its
baselines. On few labelled rows they are hard to beat: choosing among hundreds of sets by noisy losses costs more than it gains.
"""

from __future__ import annotations

import numpy as np

from ensemble.pools.blend import AS_IS, GREEDY, RIDGED_LOG, RIDGED_LOGISTIC, BlendSpec
from ensemble.pools.greedy import greedy_weights
from ensemble.search.judging import quick_loss
from ensemble.search.problem import NOT_JUDGED, Candidate, Problem
from ensemble.search.subsets import Affordable, Subset
from zoo.scores.metrics import log_loss_rows

BEST_SINGLE, BEST_RECALIBRATED, LOG_POOL = "best_single", "best_single_recalibrated", "log_pool"
BEST_SINGLES = (BEST_SINGLE, BEST_RECALIBRATED)
ALONE, RECALIBRATED = " alone", " recalibrated"  # what follows a member's name in that of its candidates


def simple_candidates(problem: Problem, available: float) -> dict[str, Candidate]:
    """Candidates within `available` seconds by name, the simplest first. None of them is judged."""
    affordable = problem.prices.affordable(available)
    everyone = everybody(problem, affordable)
    singles = [j for j in range(len(problem.members.names)) if affordable((j,))]
    raw = [float(log_loss_rows(problem.members.p[j], problem.members.y).mean()) for j in singles]
    recalibrated = min(singles, key=lambda j: quick_loss(problem, (j,), problem.of_kind(RIDGED_LOG)))
    return {
        BEST_SINGLE: _candidate(problem, (singles[int(np.argmin(raw))],), AS_IS),
        BEST_RECALIBRATED: _candidate(problem, (recalibrated,), RIDGED_LOG),
        "equal_weights": _candidate(problem, everyone, AS_IS),
        LOG_POOL: _candidate(problem, everyone, RIDGED_LOG),
        "greedy_25": _candidate(problem, greedy_set(problem, affordable), GREEDY),
        "logistic_pool": _candidate(problem, everyone, RIDGED_LOGISTIC),
    }


def single_candidates(problem: Problem, available: float) -> dict[str, Candidate]:
    """Each member alone within `available` seconds, by name.

    First as they are, then recalibrated, the best first. None of them is judged. "The best single" of `simple_candidates` is
    another member in another fold; each of these is one member throughout, and may be worth its price where that one is dear.
    """
    affordable, names = problem.prices.affordable(available), problem.members.names
    singles = [j for j in range(len(names)) if affordable((j,))]
    found: dict[str, Candidate] = {}
    for suffix, spec in ((ALONE, problem.of_kind(AS_IS)), (RECALIBRATED, problem.of_kind(RIDGED_LOG))):
        for j in sorted(singles, key=lambda j: quick_loss(problem, (j,), spec)):
            found[names[j] + suffix] = _candidate(problem, (j,), spec)
    return found


def everybody(problem: Problem, affordable: Affordable) -> Subset:
    """All members, or where they do not fit, the best alone first, each if it still fits.

    Alone means recalibrated. Few rows tell members apart well enough for that, and not enough to compare sets of them.
    """
    chosen: Subset = ()
    for j in sorted(range(len(problem.members.names)), key=lambda j: problem.fitter.score((j,)).loss):
        if affordable(more := tuple(sorted((*chosen, j)))):
            chosen = more
    return chosen


def greedy_set(problem: Problem, affordable: Affordable) -> Subset:
    """The members that greedy selection takes where all that it takes has to fit."""
    weights = greedy_weights(problem.members.p, problem.members.y, fits=affordable)
    return tuple(np.flatnonzero(weights).tolist())


def _candidate(problem: Problem, subset: Subset, spec: BlendSpec) -> Candidate:
    return Candidate(subset, problem.of_kind(spec), problem.prices.seconds(subset), NOT_JUDGED)
