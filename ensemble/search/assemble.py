"""Assemble the plan of a chosen candidate: final fits, fallbacks, gates, schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from ensemble.members.table import Members
from ensemble.plan import FrontierPoint, Plan, PlanMember, PlanTarget, Triple
from ensemble.pools.baselines import baseline_losses
from ensemble.pools.crossfit import paired, standard_error
from ensemble.search.chooser import Candidate, Chooser
from ensemble.search.decide import Choice
from ensemble.search.fitting import Fitted, fit_candidate, without_idle
from zoo.contracts import without_paths
from zoo.scores.tables import log_loss_rows


def write_down(
    chooser: Chooser,
    choice: Choice,
    losses: np.ndarray,
    *,
    whole_file_loss: float,
    estimate: str,
    target: PlanTarget,
    budget_seconds: float,
    margin: float,
    margin_reason: str,
) -> Plan:
    """Fit everything that the chosen candidate needs at prediction.

    Stands it beside what others would do.

    `losses` (rows,): the choice out of fold, and `whole_file_loss` the mean of what it would be without coverage, both come
    about as `estimate` says.
    """
    members, candidate, y = chooser.members, choice.candidate, chooser.members.y
    chooser.say("fitting blends and fallbacks")
    fitted = fit_candidate(chooser, candidate)
    busy = without_idle(chooser, candidate, fitted)
    if busy is not candidate:
        candidate, fitted = busy, fit_candidate(chooser, busy)
    compared = _compared(chooser, budget_seconds / margin)
    return Plan(
        created_at=datetime.now(UTC),
        target=target,
        budget_seconds=budget_seconds,
        margin=margin,
        margin_reason=margin_reason,
        predicted_seconds=max(job.end_seconds for job in fitted.jobs),
        overhead_seconds=chooser.overhead,
        rows=chooser.pricing.rows,
        dataset_digest=members.digest,
        fitted_rows=len(y),
        lost_rows=members.lost_rows,
        oof_log_loss=float(losses.mean()),
        oof_log_loss_se=standard_error(losses, members.groups),
        prior=_prior(y),
        parsimony=choice.why,
        paired=tuple(paired(name, losses, other, members.groups) for name, other in compared.items()),
        baselines={name: float(other.mean()) for name, other in compared.items()} | {"uniform": float(np.log(3))},
        whole_file_oof_log_loss=whole_file_loss,
        estimate=estimate,
        bound=choice.bound,
        members=tuple(_plan_member(chooser, candidate, j, fitted) for j in fitted.order),
        pools=fitted.pools,
        schedule=fitted.jobs,
        frontier=frontier_points(choice.considered, members, margin),
        left_out=members.left_out,
    )


def frontier_points(candidates: Sequence[Candidate], members: Members, margin: float) -> tuple[FrontierPoint, ...]:
    """Of judged candidates, those that no cheaper one beats, the cheapest first."""
    points: list[FrontierPoint] = []
    best = np.inf
    for candidate in sorted(candidates, key=lambda c: (c.seconds, c.loss)):
        if candidate.loss < best:
            best = candidate.loss
            coverage = [1.0] * len(candidate.whole) + [float(mask.mean()) for mask in candidate.seen.values()]
            points.append(
                FrontierPoint(
                    budget_seconds=candidate.seconds * margin,
                    predicted_seconds=candidate.seconds,
                    oof_log_loss=candidate.loss,
                    oof_log_loss_se=standard_error(candidate.losses, members.groups),
                    members=tuple(members.names[j] for j in candidate.members),
                    coverage=tuple(coverage),
                )
            )
    return tuple(points)


def _compared(chooser: Chooser, available: float) -> dict[str, np.ndarray]:
    """Losses (rows,) of what others would do with all candidates that are affordable alone.

    The best single member is the best on all rows, as its table is: choosing it by other folds would flatter the plan.
    """
    members = chooser.members
    affordable = [j for j in range(len(members.names)) if chooser.seconds((j,)) <= available]
    p = members.p[affordable]
    losses = baseline_losses([members.names[j] for j in affordable], p, members.y, members.folds)
    singles = (log_loss_rows(table, members.y) for table in p)
    return losses | {"best_single": min(singles, key=lambda rows: float(rows.mean()))}


def _prior(y: np.ndarray) -> Triple:
    """Label shares with one battle of each label added, A and B alike since their order is random."""
    counts = np.bincount(y, minlength=3) + 1.0
    side = float((counts[0] + counts[1]) / 2 / counts.sum())
    return side, side, 1.0 - 2 * side


def _plan_member(chooser: Chooser, candidate: Candidate, j: int, fitted: Fitted) -> PlanMember:
    members, pricing, card = chooser.members, chooser.pricing, chooser.members.cards[j]
    full = next(pool.blend for pool in fitted.pools if len(pool.members) == len(fitted.order) and not pool.planned)
    seen = candidate.seen.get(j)
    work = float(pricing.row_seconds[j] @ (np.ones(len(members.y)) if seen is None else seen))
    return PlanMember(
        name=card.member,
        entry=card.entry,
        variant=card.variant,
        weight=full.weights[full.members.index(card.member)] / max(sum(full.weights), 1e-12),
        coverage=1.0 if seen is None else float(seen.mean()),
        work_share=1.0 if seen is None else min(1.0, work / float(pricing.row_seconds[j].sum())),
        predicted_seconds=float(pricing.load_seconds[j]) + work,
        oof_log_loss=float(log_loss_rows(members.p[j], members.y).mean()),
        checkpoint=card.checkpoint,
        cost=card.cost.model_copy(update={"pieces": ()}),  # a plan is read by people
        tokens=pricing.estimates[j],
        mean_row_tokens=float(pricing.mean_tokens[j]),
        gate=fitted.gates.get(j),
        request=without_paths(card.request) if card.request else None,
    )
