"""The frontier of log loss against budget as files: JSON and a figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.plan import FrontierPoint
from zoo.report.drawing import BLUE, INK, ORANGE, entitle, one_panel, png, round_times, styled
from zoo.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("frontier.json", "frontier.png")
MOST_NAMED = 4  # members in the head of the figure


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


def draw_frontier(points: Sequence[FrontierPoint], path: Path) -> None:
    """Write the figure of a frontier, as PNG."""
    write_atomic(path, png(_figure(points)))


@styled
def _figure(points: Sequence[FrontierPoint]) -> Figure:
    """Steps of log loss over budget with the error of each point beside the best.

    Plans with gates are marked.
    """
    figure, axes = one_panel(8, 5)
    budget = np.array([point.budget_seconds for point in points])
    loss = np.array([point.oof_log_loss for point in points])
    error = band(points)
    gated = np.array([min(point.coverage) < 1 for point in points])
    axes.step(budget, loss, where="post", color=BLUE)
    said = "one standard error of the difference from the best"
    axes.fill_between(budget, loss - error, loss + error, step="post", alpha=0.15, color=BLUE, linewidth=0, label=said)
    for mask, marker, color, label in (
        (~gated, "o", INK, "every member sees every row"),
        (gated, "^", ORANGE, "some members see the rows where they pay"),
    ):
        if mask.any():
            axes.plot(budget[mask], loss[mask], marker, color=color, label=label)
    axes.set(xscale="log", xlabel="budget, margin included", ylabel="log loss, rehearsed")
    round_times(axes, budget.min() / 1.3, budget.max() * 1.3)
    axes.grid()
    axes.legend()
    entitle(figure, "Log loss against budget", _of(points))
    return figure


def _of(points: Sequence[FrontierPoint]) -> str:
    """Whom a frontier's figure is of: its members, the most used first."""
    counts = Counter(name for point in points for name in point.members)
    names = [name for name, _ in counts.most_common(MOST_NAMED)]
    return ", ".join(names) + (f" and {len(counts) - len(names)} more" if len(counts) > len(names) else "")
