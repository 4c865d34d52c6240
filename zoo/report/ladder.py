"""The ladder as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report.text import Cell, Column, Page, Table
from zoo.scores.ladder import TITLES, Step
from zoo.scores.metrics import uniform_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BOX = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none"}  # a label in a figure, above its line


def ladder_page(steps: Sequence[Step], figure: Path) -> Page:
    """The ladder for people: a line a form, and where the figure is."""
    columns = [
        Column("form"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("change", "change", "+.4f"),
        Column("se of that", "change_se", ".4f", drop=1),
        Column("largest change of a probability", "largest_probability_change", ".4f", drop=2),
    ]
    rows: list[list[Cell]] = [[TITLES[s.form], s.loss, s.loss_se, s.change, s.change_se, s.largest] for s in steps]
    return [Table(columns, rows), str(figure)]


def ladder_records(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The ladder as plain data."""
    return [vars(step) for step in steps]


def ladder_figure(steps: Sequence[Step], rows: int, *, ties: bool = True) -> Figure:
    """Log loss of each form with its standard error, and between neighbours the paired change.

    `ties`: whether the battles can be ties, for what guessing has.
    """
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
    guessing = uniform_loss(ties=ties)
    axes.axhline(guessing, color="0.5", linestyle="--", linewidth=1)
    axes.annotate("guessing", (0.01, guessing), xycoords=("axes fraction", "data"), va="bottom", color="0.35", fontsize=8)
    axes.set(xticks=places, ylabel="log loss, nats", title=f"The ladder, {rows} held-out rows")
    axes.set_xticklabels([TITLES[step.form].replace(", ", ",\n") for step in steps], fontsize=8)
    return figure
