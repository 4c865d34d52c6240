"""The rehearsal: the whole build repeated without each fold, judged on its rows.

It is what a plan reports of its log loss. Cross-validating the weights alone flatters a plan: which members it has, which rows
they see and which pool blends them were chosen by the same rows. Here each fold is judged by a build that never saw its labels,
from the search to the gates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ensemble.pools.blend import AS_IS
from ensemble.search.decide import LEAST_SAVING, BuildRequest, Choice, decide, refine
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.judging import judge_gated
from ensemble.search.problem import Candidate, Problem
from ensemble.search.subsets import EXACT_MEMBERS
from zoo.scores.metrics import log_loss_rows


@dataclass(frozen=True)
class Rehearsal:
    """Out-of-fold losses (rows,) of three ways to build, and the first one's triples (rows, 3).

    `plan`: the build as asked. `whole_file`: the same without coverage plans. `single`: the best single member, its table as
    it is. Each was done without the rows that it is judged on.
    """

    p: np.ndarray
    plan: np.ndarray
    whole_file: np.ndarray
    single: np.ndarray


@dataclass(frozen=True)
class Confirmed:
    """The choice that its rehearsal confirmed or replaced, and what it reports.

    `losses` (rows,) out of fold; `whole_file_loss`: the mean of what the build would report if every member had to see every
    row, the plan's own where they do; both come about as `estimate` says.
    """

    choice: Choice
    losses: np.ndarray
    whole_file_loss: float
    estimate: str


def rehearse(problem: Problem, request: BuildRequest, available: float, *, single_seconds: float) -> Rehearsal:
    """Repeat the build within `available` seconds without each of the problem's folds.

    Single members cost at most `single_seconds`. Members, shares and pools are chosen on at most FEW_ROWS of the other folds'
    rows; weights and gates are then fitted to all of these, and every row is judged.
    """
    members, numbers = problem.members, np.unique(problem.members.folds)
    p, whole_p, single_p = (np.empty((len(members.y), 3)) for _ in range(3))
    for place, fold in enumerate(numbers, start=1):
        problem.say(f"rehearsing without fold {place} of {len(numbers)}")
        held = members.folds == fold
        others = problem.on_rows(~held)
        few = others.thinned()
        choice = refine(few, decide(few, request, available, trials=False))
        p[held] = _predict(problem, held, others, choice.candidate, same_rows=few is others)
        whole_p[held] = p[held]
        if choice.candidate.seen:
            whole_p[held] = _predict(problem, held, others, choice.whole_file, same_rows=few is others)
        single = best_single(others, single_seconds)
        single_p[held] = _predict(problem, held, others, single, same_rows=True)
    losses = (log_loss_rows(table, members.y) for table in (p, whole_p, single_p))
    return Rehearsal(p, *losses)


def best_single(problem: Problem, seconds: float) -> Candidate:
    """The member of least log loss, as its table is, within `seconds`.

    The cheapest where none is.
    """
    members = problem.members
    by_seconds = sorted(range(len(members.names)), key=lambda j: problem.prices.seconds((j,)))
    affordable = [j for j in by_seconds if problem.prices.seconds((j,)) <= seconds] or by_seconds[:1]
    losses = {j: log_loss_rows(members.p[j], members.y) for j in affordable}
    best = min(affordable, key=lambda j: float(losses[j].mean()))
    return Candidate((best,), problem.of_kind(AS_IS), problem.prices.seconds((best,)), losses[best])


def confirm(problem: Problem, choice: Choice, rehearsal: Rehearsal, single_seconds: float) -> Confirmed:
    """The choice after its rehearsal, and what it reports.

    Coverage gives way to whole files, and these to the best single member as it is, where that went better.
    """
    # Where coverage was not chosen, the plan is what one without coverage would be, whatever some folds chose.
    losses = rehearsal.plan if choice.candidate.seen else rehearsal.whole_file
    if choice.candidate.seen and rehearsal.whole_file.mean() < losses.mean():
        why = f"{choice.whole_why}; coverage plans went no better in rehearsal ({losses.mean():.5f})"
        choice, losses = replace(choice, candidate=choice.whole_file, why=why, whole_why=why), rehearsal.whole_file
    if rehearsal.single.mean() < losses.mean():
        single = best_single(problem, single_seconds)
        why = f"the best single member as it is: the search for something better ended at {losses.mean():.5f} in rehearsal"
        choice, losses = replace(choice, candidate=single, why=why, whole_file=single, whole_why=why), rehearsal.single
    whole_file_loss = float(losses.mean())
    if choice.candidate.seen:
        whole_file_loss = min(float(rehearsal.whole_file.mean()), float(rehearsal.single.mean()))
    return Confirmed(choice, losses, whole_file_loss, _estimate(problem))


def single_limit(choice: Choice, available: float, *, parsimony: bool) -> float:
    """What a single member may cost: as much as the choice.

    It may cost the whole budget where the user wants the least log loss.
    """
    return min(available, choice.candidate.seconds / (1 - LEAST_SAVING)) if parsimony else available


def _estimate(problem: Problem) -> str:
    """How the reported log loss came about, for the plan."""
    members = problem.members
    folds = len(np.unique(members.folds))
    without = ", without Optuna's trials" if len(members.names) > EXACT_MEMBERS else ""
    return (
        f"the whole build, from the choice of members to the gates, was repeated {folds} times{without}, each time without the "
        "rows it was then judged on; only the last choice (coverage, whole files, or the best single member) looked at all rows"
    )


def _predict(problem: Problem, held: np.ndarray, others: Problem, candidate: Candidate, *, same_rows: bool) -> np.ndarray:
    """Triples of the held rows by the candidate, fitted to the others' rows.

    `same_rows`: it was chosen on exactly these.
    """
    if candidate.seen and not same_rows:  # the same share of each gated member's work, on more rows
        candidate = judge_gated(others, candidate.whole, candidate.spec, candidate.work)
    fitted = fit_candidate(others, candidate, fallbacks=False)
    work = {j: float(others.prices.pricing.row_seconds[j] @ seen) for j, seen in candidate.seen.items()}
    return carry_out(fitted, candidate, problem.members.rows(held), problem.prices.pricing.on_rows(held).row_seconds, work)
