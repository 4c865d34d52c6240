"""The rehearsal: the whole build repeated without each fold, judged on its rows.

It is what a plan reports of its log loss.
Cross-validating the weights alone flatters a plan: which members it has, which rows they see and which pool blends them were
chosen by the same rows. Here each fold is judged by a build that never saw its labels, from the search to the gates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ensemble.pools.blend import AS_IS
from ensemble.search.chooser import LEAST_SAVING, Candidate, Chooser
from ensemble.search.coverage import cover
from ensemble.search.decide import BuildRequest, Choice, choose, settle
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.subsets import EXACT_MEMBERS
from zoo.scores.tables import log_loss_rows


@dataclass(frozen=True)
class Rehearsal:
    """Out-of-fold losses (rows,) of three ways to go about it.

    The triples (rows, 3) are those of the first way.

    `plan`: the build as asked. `whole_file`: the same without coverage plans. `single`: the best single member, its table as
    it is. Each was done without the rows that it is judged on.
    """

    p: np.ndarray
    plan: np.ndarray
    whole_file: np.ndarray
    single: np.ndarray


def rehearse(chooser: Chooser, request: BuildRequest, available: float, *, single_seconds: float) -> Rehearsal:
    """Repeat the build within `available` seconds without each of the chooser's folds.

    Single members cost at most `single_seconds`.

    Members, shares and pools are chosen on at most `choose.FEW_ROWS` of the other folds' rows; weights and gates are then
    fitted to all of these, and every row is judged.
    """
    members, numbers = chooser.members, np.unique(chooser.members.folds)
    p, whole_p, single_p = (np.empty((len(members.y), 3)) for _ in range(3))
    for place, fold in enumerate(numbers, start=1):
        chooser.say(f"rehearsing without fold {place} of {len(numbers)}")
        held = members.folds == fold
        others = chooser.on_rows(~held)
        few = others.thinned()
        choice = settle(few, choose(few, request, available, trials=False))
        p[held] = _predict(chooser, held, others, choice.candidate, same_rows=few is others)
        whole_p[held] = p[held]
        if choice.candidate.seen:
            whole_p[held] = _predict(chooser, held, others, choice.whole_file, same_rows=few is others)
        single = best_single(others, single_seconds)
        single_p[held] = _predict(chooser, held, others, single, same_rows=True)
    losses = (log_loss_rows(table, members.y) for table in (p, whole_p, single_p))
    return Rehearsal(p, *losses)


def best_single(chooser: Chooser, seconds: float) -> Candidate:
    """The member of least log loss as its table is, of those that take at most `seconds`.

    The cheapest where none does.
    """
    members = chooser.members
    by_seconds = sorted(range(len(members.names)), key=lambda j: chooser.seconds((j,)))
    affordable = [j for j in by_seconds if chooser.seconds((j,)) <= seconds] or by_seconds[:1]
    losses = {j: log_loss_rows(members.p[j], members.y) for j in affordable}
    best = min(affordable, key=lambda j: float(losses[j].mean()))
    return Candidate((best,), AS_IS, chooser.seconds((best,)), losses[best])


def conclude(chooser: Chooser, choice: Choice, rehearsal: Rehearsal, single_seconds: float) -> tuple[Choice, np.ndarray]:
    """The choice after its rehearsal, with the losses (rows,) out of fold that it reports.

    Coverage gives way to whole files, and these to the best single member as it is, where that went better.
    """
    # Where coverage was not chosen, the plan is what one without coverage would be, whatever some folds chose.
    losses = rehearsal.plan if choice.candidate.seen else rehearsal.whole_file
    if choice.candidate.seen and rehearsal.whole_file.mean() < losses.mean():
        why = f"{choice.whole_why}; coverage plans went no better in rehearsal ({losses.mean():.5f})"
        choice, losses = replace(choice, candidate=choice.whole_file, why=why, whole_why=why), rehearsal.whole_file
    if rehearsal.single.mean() < losses.mean():
        single = best_single(chooser, single_seconds)
        why = f"the best single member as it is: the search for something better ended at {losses.mean():.5f} in rehearsal"
        choice, losses = replace(choice, candidate=single, why=why, whole_file=single, whole_why=why), rehearsal.single
    return choice, losses


def whole_file_loss(choice: Choice, losses: np.ndarray, rehearsal: Rehearsal) -> float:
    """What the build would report if every member had to see every row.

    The plan's own `losses` where they do.
    """
    if not choice.candidate.seen:
        return float(losses.mean())
    return min(float(rehearsal.whole_file.mean()), float(rehearsal.single.mean()))


def single_limit(choice: Choice, available: float, *, parsimony: bool) -> float:
    """What a single member may cost.

    As much as the choice, or all there is where the user wants the least log loss.
    """
    return min(available, choice.candidate.seconds / (1 - LEAST_SAVING)) if parsimony else available


def describe(chooser: Chooser) -> str:
    """How the reported log loss came about, for the plan."""
    members = chooser.members
    folds = len(np.unique(members.folds))
    without = ", without Optuna's trials" if len(members.names) > EXACT_MEMBERS else ""
    return (
        f"the whole build, from the choice of members to the gates, was repeated {folds} times{without}, each time without the "
        "rows it was then judged on; only the last choice (coverage, whole files, or the best single member) looked at all rows"
    )


def _predict(chooser: Chooser, held: np.ndarray, others: Chooser, candidate: Candidate, *, same_rows: bool) -> np.ndarray:
    """Triples of the held rows by the candidate, fitted to the others' rows; `same_rows`: it was chosen on exactly these."""
    if candidate.seen and not same_rows:
        candidate = _on_all_rows(others, candidate)
    fitted = fit_candidate(others, candidate, fallbacks=False)
    work = {j: float(others.pricing.row_seconds[j] @ seen) for j, seen in candidate.seen.items()}
    return carry_out(fitted, candidate, chooser.members.rows(held), chooser.pricing.on_rows(held).row_seconds, work)


def _on_all_rows(chooser: Chooser, candidate: Candidate) -> Candidate:
    """A coverage plan that was made on some of the chooser's rows, on all of them at the same share of each member's work."""
    members, row_seconds = chooser.members, chooser.pricing.row_seconds
    work = [(j, candidate.work[j]) for j in candidate.seen]
    covered = cover(chooser.evaluator, candidate.spec, members.characters, row_seconds, candidate.whole, work)
    return replace(candidate, seen=covered.seen, own_blend=covered.own_blend, losses=covered.losses)
