"""The frontier of log loss against budget as files: JSON and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.plan import FrontierPoint
from zoo.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILES = ("frontier.json", "frontier.png")
ROUND_TIMES = (
    *((1, "1 s"), (3, "3 s"), (10, "10 s"), (30, "30 s"), (60, "1 min"), (180, "3 min"), (600, "10 min"), (1800, "30 min")),
    *((3600, "1 h"), (10800, "3 h"), (32400, "9 h"), (86400, "1 d"), (259200, "3 d")),
)
BETWEEN = (  # of a range in which fewer than FEWEST_TICKS of them lie
    *((2, "2 s"), (5, "5 s"), (20, "20 s"), (120, "2 min"), (300, "5 min"), (1200, "20 min"), (2700, "45 min")),
    *((7200, "2 h"), (14400, "4 h"), (21600, "6 h"), (43200, "12 h"), (172800, "2 d")),
)
FEWEST_TICKS = 3


def save_frontier(points: Sequence[FrontierPoint], folder: Path) -> None:
    """Write FILES into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, figure = (folder / file for file in FILES)
    write_atomic(table, json.dumps([point.model_dump(mode="json") for point in points], indent=1))
    draw_frontier(points, figure)


def band(points: Sequence[FrontierPoint]) -> np.ndarray:
    """The error (points,) to draw around each point.

    It is that of the difference from the best one, where that is known. All points have the same rows, and most of each one's
    own error with them: beside one another it would say nothing.
    """
    return np.array([point.beside_best.standard_error if point.beside_best else point.oof_log_loss_se for point in points])


def bars_text(points: Sequence[FrontierPoint]) -> str:
    """What `band` draws, in words."""
    paired = all(point.beside_best for point in points)
    return f"Bars are one standard error{' of the difference from the best of them, row by row' if paired else ''}."


def round_times(axes: Axes, low: float, high: float) -> None:
    """Ticks of an axis of budgets from `low` to `high` seconds, at times that people say."""
    ticks = [(seconds, label) for seconds, label in ROUND_TIMES if low <= seconds <= high]
    if len(ticks) < FEWEST_TICKS:
        ticks = sorted([*ticks, *((seconds, label) for seconds, label in BETWEEN if low <= seconds <= high)])
    axes.set_xticks([seconds for seconds, _ in ticks], [label for _, label in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def draw_frontier(points: Sequence[FrontierPoint], path: Path) -> None:
    """Steps of log loss over budget with the error of each point beside the best.

    Plans with gates are marked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from zoo.report.figures import png

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    budget = np.array([point.budget_seconds for point in points])
    loss = np.array([point.oof_log_loss for point in points])
    error = band(points)
    gated = np.array([min(point.coverage) < 1 for point in points])
    axes.step(budget, loss, where="post", color="tab:blue")
    axes.fill_between(
        budget,
        loss - error,
        loss + error,
        step="post",
        alpha=0.15,
        color="tab:blue",
        label="one standard error of the difference from the best",
    )
    for mask, marker, label in (
        (~gated, "o", "every member sees every row"),
        (gated, "^", "some members see the rows where they pay"),
    ):
        if mask.any():
            axes.plot(budget[mask], loss[mask], marker, label=label)
    axes.set(xscale="log", xlabel="budget, margin included", ylabel="log loss, rehearsed")
    round_times(axes, budget.min() / 1.3, budget.max() * 1.3)
    axes.grid(alpha=0.3)
    axes.legend()
    write_atomic(path, png(figure))
