"""The frontier: log loss against budget, from one fit of the members."""

from __future__ import annotations

import numpy as np

from ensemble.budget.margin import choose_margin
from ensemble.members.table import Members
from ensemble.plan import FrontierPoint
from ensemble.search.assemble import frontier_points
from ensemble.search.build import pose_problem
from ensemble.search.decide import BuildRequest, decide
from ensemble.search.problem import Candidate
from zoo.contracts import Say


def compute_frontier(
    members: Members, request: BuildRequest, *, points: int = 8, say: Say = lambda _: None
) -> tuple[FrontierPoint, ...]:
    """The plans that no cheaper one beats, from the cheapest plan to all members.

    Budgets are spaced by ratio. Losses are out of fold with the pool chosen by the other folds; which plans are here was chosen
    on all rows.
    """
    margin, _ = choose_margin(request.target, members.costs, request.margin)
    problem = pose_problem(members, request, say=say)
    everyone = range(len(problem.members.names))
    least = min(problem.prices.seconds((j,)) for j in everyone)
    most = max(problem.prices.seconds(tuple(everyone)), least)
    considered: list[Candidate] = []
    for available in dict.fromkeys(np.geomspace(least, most, points).tolist()):
        say(f"budget {available * margin:.0f} s")
        considered += decide(problem, request, available).considered
    return frontier_points(considered, problem.members, margin)
