"""What `zoo caps` shows: a table of ways to read rows, and log loss against hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.drawing import GREY, SMALL, STYLES, entitle, one_panel, styled
from zoo.report.ladder import BOX
from zoo.report.text import Cell, Column, Page, Table, digits
from zoo.scores.caps import CapsReport, Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def caps_page(report: CapsReport, notes: Sequence[str]) -> Page:
    """The comparison for people: a line a variant, what its columns mean, and the files."""
    return [
        f"{report.entry}: {report.battles:,} held-out rows of {report.prompts:,} prompts; hours of {report.rows:,} such rows "
        f"on {report.target}",
        "",
        caps_table(report),
        "",
        f"change: from {report.reference}, on the same rows; errors by groups of near-copied prompts",
        "worth: on the lower hull of log loss against hours, each gaining more than one error over the one before",
        *_above_guessing(report),
        *notes,
    ]


def _above_guessing(report: CapsReport) -> list[str]:
    """A warning where nothing should be chosen by these numbers."""
    if min(one.log_loss for one in report.readings) < report.guessing:
        return []
    return [
        f"every log loss is above guessing's {report.guessing:.4f}: train the model further before anything is chosen by it"
    ]


def caps_table(report: CapsReport) -> Table:
    """A line a variant in the order in which they were asked for."""
    columns = [
        Column("variant"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f", drop=2),
        Column("change", "change", "+.4f"),
        Column("se of that", "change_se", ".4f", drop=1),
        Column("tokens/row", "tokens_per_row", ".0f", drop=3),
        Column("cut", "rows_cut", ",.0f", drop=4),
        Column("shared", "rows_shared", ",.0f", drop=6),
        Column("hours", "hours", digits(3)),
        Column("low", "hours_low", digits(3), drop=5),
        Column("high", "hours_high", digits(3), drop=5),
        Column("worth", "worthwhile"),
    ]
    return Table(columns, [_line(one) for one in report.readings])


def _line(one: Reading) -> list[Cell]:
    low, likely, high = one.hours
    numbers: list[Cell] = [one.variant.slug, one.log_loss, one.log_loss_se, one.change, one.change_se, one.tokens, one.cut]
    return [*numbers, one.shared, likely, low, high, "yes" if one.worthwhile else ""]


@styled
def caps_figure(report: CapsReport) -> Figure:
    """Log loss against hours: a line a way to cut and to ask, over its caps.

    Rings are around what is worth its hours. Bars are one standard error of the paired difference from the reference, which
    therefore has none.
    """
    figure, axes = one_panel(7, 5)
    for number, (name, line) in enumerate(_lines(report).items()):
        color, marker, style = STYLES[number % len(STYLES)]
        hours, losses = [one.likely_hours for one in line], [one.log_loss for one in line]
        errors = [one.change_se or 0.0 for one in line]
        second = number >= len(STYLES)  # of the same colour: open marks and a line of another kind
        points = axes.errorbar(hours, losses, yerr=errors, color=color, capsize=3, linewidth=1, label=name)
        points[0].set(marker=marker, fillstyle="none" if second else "full", linestyle="-." if second else style)
    hull = sorted((one for one in report.readings if one.worthwhile), key=lambda one: one.likely_hours)
    axes.plot(
        [one.likely_hours for one in hull],
        [one.log_loss for one in hull],
        marker="o",
        markersize=14,
        fillstyle="none",
        color=GREY,
        linestyle="none",
        label="worth its hours",
    )
    _name_caps(axes, report)
    axes.margins(x=0.08, y=0.12)
    axes.set(xlabel=f"hours for {report.rows:,} such rows on {report.target}", ylabel="log loss, nats")
    axes.grid()
    axes.legend()
    entitle(
        figure,
        "Log loss against hours, by what is read of a row",
        f"{report.entry}, {report.battles:,} held-out rows; bars: paired error from {report.reference}",
    )
    return figure


def _lines(report: CapsReport) -> dict[str, list[Reading]]:
    """The readings that differ in their cap alone, by what they have in common."""
    found: dict[str, list[Reading]] = {}
    for one in report.readings:
        cap = str(one.variant.max_tokens)
        name = "-".join(part for part in one.variant.slug.split("-") if part != cap)
        found.setdefault(name, []).append(one)
    return found


def _name_caps(axes: Axes, report: CapsReport) -> None:
    """The cap of each point, once where several have it and cost the same."""
    named: set[tuple[int | None, float]] = set()
    for one in sorted(report.readings, key=lambda one: one.log_loss):
        place = (one.variant.max_tokens, round(one.likely_hours, 6))
        if place not in named:
            where, text = (one.likely_hours, one.log_loss), str(one.variant.max_tokens)
            axes.annotate(text, where, xytext=(8, -13), textcoords="offset points", fontsize=SMALL, bbox=BOX)
        named.add(place)
