"""The frontier: log loss against budget, each point what `ensemble build` reports."""

from __future__ import annotations

import numpy as np

from ensemble.budget.margin import choose_margin
from ensemble.members.table import Members
from ensemble.plan import FrontierPoint
from ensemble.pools.crossfit import paired
from ensemble.search.build import pose_problem
from ensemble.search.challenge import settle
from ensemble.search.decide import BuildRequest, find_candidates
from ensemble.search.fitting import fit_candidate, without_idle
from ensemble.search.prices import Budget
from ensemble.search.problem import Problem
from ensemble.search.rehearse import Confirmed, rehearse
from zoo.contracts import Say
from zoo.report.duration import format_seconds
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
        say(f"budget {format_seconds(budget)}")
        found.append(find_candidates(problem, request, seconds))
    rehearsals = rehearse(problem, request, available)
    confirmed = [
        settle(problem, request, Budget(budget, margin, reason), one, rehearsal).confirmed
        for budget, one, rehearsal in zip(budgets, found, rehearsals, strict=True)
    ]
    means = [float(one.losses.mean()) for one in confirmed]
    kept = [place for place, mean in enumerate(means) if all(mean < cheaper for cheaper in means[:place])]
    best = confirmed[kept[-1]].losses
    return tuple(_point(problem, confirmed[place], budgets[place], best) for place in kept)


def _point(problem: Problem, confirmed: Confirmed, budget: float, best: np.ndarray) -> FrontierPoint:
    """A budget's plan; `best`: losses (rows,) of the frontier's best, by which its band is drawn."""
    members = problem.members
    candidate = without_idle(problem, confirmed.candidate, fit_candidate(problem, confirmed.candidate, fallbacks=False))
    return FrontierPoint(
        budget_seconds=budget,
        predicted_seconds=problem.prices.likely.seconds(candidate.whole, candidate.seen),
        oof_log_loss=float(confirmed.losses.mean()),
        oof_log_loss_se=standard_error(confirmed.losses, members.groups),
        members=tuple(members.names[j] for j in candidate.members),
        coverage=(*(1.0 for _ in candidate.whole), *(float(rows.mean()) for rows in candidate.seen.values())),
        rehearsed=True,
        beside_best=paired("best", confirmed.losses, best, members.groups),
    )
