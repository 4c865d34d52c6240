"""Assemble the plan of the confirmed choice: final fits, baselines, schedule.

`build` calls it last, after `find_candidates` and `settle`; the fits themselves are in `fitting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from ensemble.members.table import Members
from ensemble.plan import FrontierPoint, Plan, PlanMember, PlanStudy, PlanTarget
from ensemble.pools.crossfit import paired
from ensemble.search.decide import Found
from ensemble.search.fitting import Fitted, fit_candidate, without_idle
from ensemble.search.fitting_rows import describe_fit
from ensemble.search.prices import Budget
from ensemble.search.problem import Candidate, Problem
from ensemble.search.reasons import error_correlation, reasons_of
from ensemble.search.rehearse import Confirmed
from zoo.contracts import without_paths
from zoo.scores.metrics import accuracy_of_two, log_loss_rows, mean_and_error, standard_error
from zoo.targets import Target
from zoo.tracking.spans import span


def assemble(
    problem: Problem, found: Found, confirmed: Confirmed, budget: Budget, target: Target, *, study: PlanStudy | None = None
) -> Plan:
    """Fit what the confirmed candidate needs at prediction.

    What else was rehearsed stands beside it.
    """
    problem.say("fitting blends and fallbacks")
    candidate = confirmed.candidate
    with span("fits"):
        fitted = fit_candidate(problem, candidate)
        busy = without_idle(problem, candidate, fitted)
        if busy is not candidate:
            candidate, fitted = busy, fit_candidate(problem, busy)
    with span("frontier"):
        frontier = frontier_points(problem, found.considered, budget.margin)
    with span("what each member is worth"):
        reasons = reasons_of(problem, candidate, fitted.order, budget)
    members, losses = problem.members, confirmed.losses
    loss, error = mean_and_error(losses, members.groups)
    beside = confirmed.beside
    predicted = max(job.end_seconds for job in fitted.jobs)
    margin, margin_reason = _margin(problem, candidate, budget, predicted)
    return Plan(
        created_at=datetime.now(UTC),
        target=PlanTarget(name=target.name, gpus=target.gpus),
        budget_seconds=budget.seconds,
        margin=margin,
        margin_reason=margin_reason,
        predicted_seconds=predicted,
        overhead_seconds=problem.prices.overhead,
        rows=problem.prices.pricing.rows,
        dataset_digest=members.digest,
        fitted_rows=len(members.y),
        lost_rows=members.lost_rows,
        oof_log_loss=loss,
        oof_log_loss_se=error,
        ties=members.ties,
        oof_accuracy=_accuracy(losses, members),
        prior=members.prior,
        parsimony=confirmed.why,
        paired=tuple(paired(name, losses, other, members.groups) for name, other in beside.items()),
        baselines={name: float(other.mean()) for name, other in beside.items()} | {"uniform": members.uniform_loss},
        baseline_accuracies={} if members.ties else {name: accuracy_of_two(other) for name, other in beside.items()},
        chosen=confirmed.name,
        baseline_members={name: tuple(members.names[j] for j in found.everything[name].members) for name in beside},
        whole_file_oof_log_loss=confirmed.whole_file_loss,
        estimate=confirmed.estimate,
        bound=found.bound,
        study=study,
        members=tuple(_plan_member(problem, candidate, j, fitted) for j in fitted.order),
        pools=fitted.pools,
        schedule=fitted.jobs,
        frontier=frontier,
        left_out=members.left_out,
        reasons=reasons,
        error_correlation=error_correlation(members, fitted.order) if len(members.names) > 1 else None,
        fitting=describe_fit(problem, candidate),
        robust=confirmed.robust,
    )


def _margin(problem: Problem, candidate: Candidate, budget: Budget, predicted: float) -> tuple[float, str]:
    """The margin on a plan's likely seconds, and its reason: the budget's, and what its forecast members add to that."""
    members, more = problem.members, problem.prices.seconds(candidate.whole, candidate.seen) / predicted
    foretold = [members.names[j] for j in candidate.members if members.costs[j].forecast]
    if not foretold or not (problem.prices.pricing.factors != 1).any():
        return budget.margin, budget.margin_reason
    reason = f"{budget.margin:g} times {more:.3g} for the upper ends of forecasts ({', '.join(foretold)})"
    return budget.margin * more, f"{budget.margin_reason}; {reason}"


def frontier_points(problem: Problem, candidates: Sequence[Candidate], margin: float) -> tuple[FrontierPoint, ...]:
    """Of judged candidates, those that no cheaper one beats, the cheapest first.

    They are not rehearsed.
    """
    members = problem.members
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.seconds, c.loss)):
        if not front or candidate.loss < front[-1].loss:
            front.append(candidate)
    return tuple(
        FrontierPoint(
            budget_seconds=candidate.seconds * margin,
            predicted_seconds=problem.prices.likely.seconds(candidate.whole, candidate.seen),
            oof_log_loss=candidate.loss,
            oof_log_loss_se=standard_error(candidate.losses, members.groups),
            oof_accuracy=_accuracy(candidate.losses, members),
            members=tuple(members.names[j] for j in candidate.members),
            coverage=(*(1.0 for _ in candidate.whole), *(float(rows.mean()) for rows in candidate.seen.values())),
            beside_best=paired("best", candidate.losses, front[-1].losses, members.groups),
        )
        for candidate in front
    )


def _accuracy(losses: np.ndarray, members: Members) -> float | None:
    """The share of rows whose winner is the likelier; None where there are ties."""
    return None if members.ties else accuracy_of_two(losses)


def _plan_member(problem: Problem, candidate: Candidate, j: int, fitted: Fitted) -> PlanMember:
    members, pricing, card = problem.members, problem.prices.pricing.likely, problem.members.cards[j]
    full = next(pool.blend for pool in fitted.pools if len(pool.members) == len(fitted.order) and not pool.planned)
    seen = candidate.seen.get(j)
    losses = log_loss_rows(members.p[j], members.y)
    work = float(pricing.row_seconds[j] @ (np.ones(len(members.y)) if seen is None else seen))
    return PlanMember(
        name=card.member,
        entry=card.entry,
        variant=card.variant,
        weight=full.weights[full.members.index(card.member)] / max(sum(full.weights), 1e-12),
        coverage=1.0 if seen is None else float(seen.mean()),
        work_share=1.0 if seen is None else min(1.0, work / float(pricing.row_seconds[j].sum())),
        predicted_seconds=float(pricing.load_seconds[j]) + work,
        oof_log_loss=float(losses.mean()),
        oof_accuracy=_accuracy(losses, members),
        checkpoint=card.checkpoint,
        cost=card.cost.model_copy(update={"pieces": ()}),  # a plan is read by people
        tokens=pricing.estimates[j],
        mean_row_tokens=float(pricing.mean_tokens[j]),
        gate=fitted.gates.get(j),
        request=without_paths(card.request) if card.request else None,
    )
