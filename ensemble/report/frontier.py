"""The frontier of log loss against budget as files: JSON and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble.plan import FrontierPoint
from zoo.store import write_atomic

FILES = ("frontier.json", "frontier.png")


def save_frontier(points: Sequence[FrontierPoint], folder: Path) -> None:
    """Write FILES into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, figure = (folder / file for file in FILES)
    write_atomic(table, json.dumps([point.model_dump(mode="json") for point in points], indent=1))
    draw_frontier(points, figure)


def draw_frontier(points: Sequence[FrontierPoint], path: Path) -> None:
    """Steps of log loss over budget with standard errors; plans with gates are marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from zoo.report.figures import png

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
    axes.set(xscale="log", xlabel="budget, seconds (margin included)", ylabel="log loss, rehearsed")
    axes.grid(alpha=0.3)
    axes.legend()
    write_atomic(path, png(figure))
