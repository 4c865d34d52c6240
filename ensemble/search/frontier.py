"""The frontier: log loss against budget, each point what `ensemble build` reports."""

from __future__ import annotations

import numpy as np

from ensemble.budget.margin import choose_margin
from ensemble.members.table import Members
from ensemble.plan import FrontierPoint
from ensemble.search.build import pose_problem
from ensemble.search.challenge import settle
from ensemble.search.decide import BuildRequest, find_candidates
from ensemble.search.prices import Budget
from ensemble.search.problem import Problem
from ensemble.search.rehearse import Confirmed, rehearse
from zoo.contracts import Say
from zoo.scores.metrics import standard_error


def compute_frontier(
    members: Members, request: BuildRequest, *, points: int = 8, say: Say = lambda _: None
) -> tuple[FrontierPoint, ...]:
    """The plans that no cheaper one beats, at budgets from the cheapest plan to all members.

    Budgets are spaced by ratio. Losses are rehearsed, as a build's is, and each
    budget has the study that a build has.
    """
    margin, reason = choose_margin(request.target, members.costs, request.margin)
    problem = pose_problem(members, request, say=say)
    everyone = range(len(problem.members.names))
    least = min(problem.prices.seconds((j,)) for j in everyone)
    most = max(problem.prices.seconds(tuple(everyone)), least)
    # A budget is what a user would ask for: whole seconds, from which `build` gets the same available seconds.
    budgets = list(dict.fromkeys(np.ceil(np.geomspace(least, most, points) * margin).tolist()))
    available = [budget / margin for budget in budgets]
    found = []
    for budget, seconds in zip(budgets, available, strict=True):
        say(f"budget {budget:.0f} s")
        found.append(find_candidates(problem, request, seconds))
    rehearsals = rehearse(problem, request, available)
    confirmed = [
        settle(problem, request, Budget(budget, margin, reason), one, rehearsal).confirmed
        for budget, one, rehearsal in zip(budgets, found, rehearsals, strict=True)
    ]
    every = [_point(problem, one, budget) for one, budget in zip(confirmed, budgets, strict=True)]
    return tuple(point for place, point in enumerate(every) if all(point.oof_log_loss < p.oof_log_loss for p in every[:place]))


def _point(problem: Problem, confirmed: Confirmed, budget: float) -> FrontierPoint:
    members, candidate = problem.members, confirmed.candidate
    return FrontierPoint(
        budget_seconds=budget,
        predicted_seconds=candidate.seconds,
        oof_log_loss=float(confirmed.losses.mean()),
        oof_log_loss_se=standard_error(confirmed.losses, members.groups),
        members=tuple(members.names[j] for j in candidate.members),
        coverage=(*(1.0 for _ in candidate.whole), *(float(rows.mean()) for rows in candidate.seen.values())),
        rehearsed=True,
    )
