"""The frontier: log loss against budget, from one fit of the members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble.budget.margin import choose_margin
from ensemble.members.table import Members
from ensemble.plan import FrontierPoint
from ensemble.pools.crossfit import Progress
from ensemble.search.assemble import frontier_points
from ensemble.search.build import make_chooser
from ensemble.search.chooser import Candidate
from ensemble.search.decide import BuildRequest, choose
from zoo.store import write_atomic


def compute_frontier(
    members: Members, request: BuildRequest, *, points: int = 8, say: Progress = lambda _: None
) -> tuple[FrontierPoint, ...]:
    """The plans that no cheaper one beats.

    Budgets lie between the cheapest plan and all members, spaced by ratio.

    Losses are out of fold with the pool chosen by the other folds; which plans are here was chosen on all rows.
    """
    margin, _ = choose_margin(request.target, members.costs, request.margin)
    chooser = make_chooser(members, request, say=say)
    everyone = range(len(chooser.members.names))
    least = min(chooser.seconds((j,)) for j in everyone)
    most = max(chooser.seconds(tuple(everyone)), least)
    considered: list[Candidate] = []
    for available in dict.fromkeys(np.geomspace(least, most, points).tolist()):
        say(f"budget {available * margin:.0f} s")
        considered += choose(chooser, request, available).considered
    return frontier_points(considered, chooser.members, margin)


def save_frontier(points: Sequence[FrontierPoint], folder: Path) -> None:
    """Write frontier.json and frontier.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "frontier.json", json.dumps([point.model_dump(mode="json") for point in points], indent=1))
    draw_frontier(points, folder / "frontier.png")


def draw_frontier(points: Sequence[FrontierPoint], path: Path) -> None:
    """Steps of log loss over budget with standard errors; plans with gates are marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    budget = np.array([point.budget_seconds for point in points])
    loss = np.array([point.oof_log_loss for point in points])
    error = np.array([point.oof_log_loss_se for point in points])
    gated = np.array([min(point.coverage) < 1 for point in points])
    axes.step(budget, loss, where="post", color="tab:blue")
    axes.fill_between(budget, loss - error, loss + error, step="post", alpha=0.15, color="tab:blue", label="one standard error")
    for mask, marker, label in (
        (~gated, "o", "every member sees every row"),
        (gated, "^", "some members see the rows where they pay"),
    ):
        if mask.any():
            axes.plot(budget[mask], loss[mask], marker, label=label)
    axes.set(xscale="log", xlabel="budget, seconds (margin included)", ylabel="log loss out of fold")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
