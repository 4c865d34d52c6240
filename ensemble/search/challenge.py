"""What a study adds to a build: one more candidate, which has to beat the exact result.

Its losses are rehearsed as all others' are: for each fold it is the trial that the other folds prefer, fitted without the
fold's rows. It takes the plan only where it is better by more than the error of that, so that more trials never make the
reported log loss worse, and hardly ever the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ensemble.plan import PlanStudy, candidate_words
from ensemble.pools.crossfit import rows_beside
from ensemble.search.contest import SURELY, has_few_rows
from ensemble.search.decide import BuildRequest, Found
from ensemble.search.judging import judge_gated
from ensemble.search.measure import BY_ROWS, Measure
from ensemble.search.prices import Budget
from ensemble.search.problem import NOT_JUDGED, Candidate, Problem
from ensemble.search.rehearse import Confirmed, Rehearsal, confirm, predict_held
from ensemble.search.robust import words
from ensemble.search.space import Drawn
from ensemble.search.study import Tried, run_study
from zoo.scores.metrics import log_loss_rows
from zoo.tracking.spans import span

STUDY = "study"


@dataclass(frozen=True)
class Settled:
    """The candidates with the study's among them, the one taken, and the study if there is one."""

    found: Found
    confirmed: Confirmed
    study: PlanStudy | None = None


def settle(problem: Problem, request: BuildRequest, budget: Budget, found: Found, rehearsal: Rehearsal) -> Settled:
    """What the rehearsal confirms, and then what a study makes of it."""
    confirmed = confirm(problem, found, rehearsal, parsimony=request.parsimony)
    if not request.limits.trials:
        return Settled(found, confirmed)
    known, target, groups = found.candidates, request.target.name, rehearsal.groups
    with span("study"):
        tried = run_study(problem, budget, request.limits, known, target=target, coverage=request.coverage, groups=groups)
    if tried is None:
        return Settled(found, confirmed)
    candidate = candidate_of(problem, tried.preferred(np.ones(tried.losses.shape[1], dtype=bool)))
    with span("rehearsal of the study"):
        losses = rehearse_study(problem, tried, rehearsal.folds)
    confirmed = challenged(problem, confirmed, candidate, losses, rehearsal.folds, Measure(groups))
    return Settled(replace(found, candidates=known | {STUDY: candidate}), confirmed, tried.kept)


def rehearse_study(problem: Problem, tried: Tried, folds: np.ndarray) -> np.ndarray:
    """Losses (repeats, rows) of the trial that, for each fold, the other folds prefer."""
    losses, judged = np.empty(folds.shape), problem.thinned_rows
    for repeat, held in _each_fold(folds):
        others = problem.on_rows(rows_beside(held, problem.members.groups))  # a prompt may lie in two groups
        candidate = candidate_of(others, tried.preferred(~held[judged]))
        p = predict_held(problem, held, others, candidate, same_rows=True)
        losses[repeat, held] = log_loss_rows(p, problem.members.y[held])
    return losses


def candidate_of(problem: Problem, drawn: Drawn) -> Candidate:
    """A trial's plan on all rows of a problem."""
    if drawn.work:
        return judge_gated(problem, drawn.whole, drawn.spec, drawn.work)
    return Candidate(drawn.whole, drawn.spec, problem.prices.seconds(drawn.whole), NOT_JUDGED)


def challenged(
    problem: Problem,
    confirmed: Confirmed,
    candidate: Candidate,
    losses: np.ndarray,
    folds: np.ndarray,
    measure: Measure = BY_ROWS,
) -> Confirmed:
    """The study's candidate where its rehearsed `losses` (repeats, rows) win by this measure.

    Else what was confirmed.
    """
    groups, means = problem.members.groups, losses.mean(axis=0)
    beside = confirmed.beside | {STUDY: means}
    difference, error = measure.beyond(losses, confirmed.by_repeat, groups)
    against = f"{difference:+.5f} +- {error:.5f}"
    reported = take_over(confirmed.by_repeat, losses, folds, groups, measure)
    if reported is None or not all(rows.any() for rows in candidate.seen.values()):
        why = f"{confirmed.why}; the study's best trials came out {against} against it, too little to replace it"
        return replace(confirmed, why=why, beside=beside)
    return Confirmed(
        STUDY,
        candidate,
        f"study: {against} against what the exact search would take ({candidate_words(confirmed.name)}) in the same rehearsal"
        + (f" by {words(measure.held.asked, measure.held.names)}" if measure.held else ""),
        reported,
        confirmed.whole_file_loss if candidate.seen else float(reported.mean()),
        confirmed.estimate + "; the study's trials were proposed by all rows, and which of them stands for it in a fold was "
        "decided by the other folds",
        beside,
        None if measure.held is None else measure.held.report(reported.mean(axis=0), groups),
    )


def take_over(
    exact: np.ndarray, study: np.ndarray, folds: np.ndarray, groups: np.ndarray, measure: Measure = BY_ROWS
) -> np.ndarray | None:
    """What is reported (repeats, rows) where a study replaces the exact result, else None.

    It does where its losses are lower by more than the error of that, on few rows by SURELY errors. Reported is, as for every
    choice, what the other folds would have taken in each fold; were that worse than the exact result's, it stays.
    """
    errors = SURELY if has_few_rows(exact) else 1.0

    def wins(rows: np.ndarray) -> bool:
        difference, error = measure.on(rows).beyond(study[:, rows], exact[:, rows], groups[rows])
        return difference < -errors * error

    if not wins(np.ones(len(groups), dtype=bool)):
        return None
    reported = exact.copy()
    for repeat, held in _each_fold(folds):
        if wins(~held):
            reported[repeat, held] = study[repeat, held]
    return reported if measure.score(reported.mean(axis=0)) <= measure.score(exact.mean(axis=0)) else None


def _each_fold(folds: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each repeat with the rows, bool (rows,), of each of its folds."""
    for repeat, assigned in enumerate(folds):
        for fold in np.unique(assigned):
            yield repeat, assigned == fold
