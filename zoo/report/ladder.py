"""The ladder as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.scores.ladder import (
    TITLES,
    Step,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BOX = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none"}  # a label in a figure, above its line


def ladder_table(steps: Sequence[Step]) -> str:
    """The ladder for people: a line a form."""
    from zoo.report.text import text_table

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = [
        [
            TITLES[step.form],
            f"{step.loss:.4f} ± {step.loss_se:.4f}",
            "" if step.change is None else f"{step.change:+.4f} ± {step.change_se:.4f}",
            number(step.largest, ".4f"),
        ]
        for step in steps
    ]
    return text_table(["form", "log loss", "against the one above", "largest change of a probability"], rows)


def ladder_figure(steps: Sequence[Step], rows: int) -> Figure:
    """Log loss of each form with its standard error, and between neighbours the paired change."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(steps))
    losses = np.array([step.loss for step in steps])
    axes.errorbar(places, losses, yerr=[step.loss_se for step in steps], color="#1b1b1b", marker="o", capsize=4, linewidth=1)
    for place, step in zip(places[1:], steps[1:], strict=True):
        middle = (losses[place] + losses[place - 1]) / 2
        text = f"{step.change:+.4f}\n± {step.change_se:.4f}"
        axes.annotate(text, (place - 0.5, middle), ha="center", va="center", fontsize=8, bbox=BOX)
    axes.axhline(np.log(3), color="0.5", linestyle="--", linewidth=1)
    axes.annotate("guessing", (0.01, np.log(3)), xycoords=("axes fraction", "data"), va="bottom", color="0.35", fontsize=8)
    axes.set(xticks=places, ylabel="log loss, nats", title=f"The ladder, {rows} held-out rows")
    axes.set_xticklabels([TITLES[step.form].replace(", ", ",\n") for step in steps], fontsize=8)
    return figure
