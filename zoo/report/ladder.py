"""The ladder as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.report.drawing import GREY, INK, SMALL, entitle, one_panel, styled
from zoo.report.text import Cell, Column, Page, Table
from zoo.scores.ladder import BEFORE, TITLES, Step
from zoo.scores.metrics import uniform_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BOX = {"boxstyle": "square,pad=0.1", "facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.8}  # of a label, above lines


def ladder_page(steps: Sequence[Step], figure: Path) -> Page:
    """The ladder for people: a line a form, and where the figure is."""
    return [ladder_table(steps), str(figure)]


def ladder_table(steps: Sequence[Step]) -> Table:
    """A line a form, each beside the one that it is compared with."""
    columns = [
        Column("form"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("change", "change", "+.4f"),
        Column("se of that", "change_se", ".4f", drop=1),
        Column("largest change of a probability", "largest_probability_change", ".4f", drop=2),
    ]
    rows: list[list[Cell]] = [[TITLES[s.form], s.loss, s.loss_se, s.change, s.change_se, s.largest] for s in steps]
    return Table(columns, rows)


def ladder_records(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The ladder as plain data."""
    return [vars(step) for step in steps]


@styled
def ladder_figure(steps: Sequence[Step], rows: int, *, ties: bool = True, of: str = "") -> Figure:
    """Log loss of each form, joined to the one it is compared with.

    Bars are one standard error of the change from that one, row by row; the first form's is its own. `ties`: whether the
    battles can be ties, for what guessing has. `of`: entry and data, for the title.
    """
    figure, axes = one_panel(max(6.5, 1.5 + 1.15 * len(steps)), 4.8)
    place = {step.form: number for number, step in enumerate(steps)}
    losses = [step.loss for step in steps]
    for number, step in enumerate(steps):
        known = step.loss_se if step.change is None else step.change_se
        error = known if known is not None and math.isfinite(known) else 0.0  # of one row nothing is known of it
        axes.errorbar(number, step.loss, yerr=error, color=INK, marker="o", capsize=4, linewidth=1.2)
        before = place.get(BEFORE.get(step.form, ""), number - 1)
        if number:
            axes.plot([before, number], [losses[before], step.loss], color=GREY, linewidth=1, zorder=1)
        change = "" if step.change is None else f"\n{step.change:+.4f}\n± {error:.4f}".replace("-", "−")
        axes.annotate(
            f"{step.loss:.4f}{change}",
            (number, step.loss + error),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            bbox=BOX,
        )
    guessing = uniform_loss(ties=ties)
    axes.axhline(guessing, color=GREY, linestyle="--", linewidth=1, zorder=0)
    axes.annotate("guessing", (0.005, guessing), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=SMALL)
    axes.set(xticks=range(len(steps)), ylabel="log loss, nats", xlim=(-0.5, len(steps) - 0.5))
    axes.set_xticklabels([TITLES[step.form].replace(", ", ",\n") for step in steps], fontsize=SMALL)
    axes.margins(y=0.22)
    entitle(
        figure, f"The ladder, {rows:,} held-out rows", f"{of}{'; ' if of else ''}bars: standard error of the change, row by row"
    )
    return figure
