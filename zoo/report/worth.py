"""What sources were worth, for people: leaderboard, every comparison, curve, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.drawing import GREY, STYLES, entitle, styled
from zoo.report.text import Cell, Column, Page, Table
from zoo.scores.gains import Gain
from zoo.scores.worth import ALL, ALONE, CHOOSE, HELD_OUT, REPORT, Area, Contrast, WorthReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_TOLD = "not told from 0"
HARMS, GAINS = "costs", "gains"
SYMLOG_ROWS = 500  # rows of a curve below which the axis is linear, so that 0 has a place


def verdict(gain: Gain) -> str:
    """Whether a gain is told from zero, in a word or two."""
    return NOT_TOLD if not gain.told else GAINS if gain.mean > 0 else HARMS


def worth_page(report: WorthReport, written: Sequence[str]) -> Page:
    """The leaderboard, where curves drown, and how errors are to be read."""
    page: list[str | Table] = [report.question, "", leaderboard_table(report), "", *_notes(report)]
    if report.drowned:
        page += ["", drowned_table(report)]
    return [*page, "", *written]


def leaderboard_table(report: WorthReport) -> Table:
    """A line a source and entry, the most gained first.

    Gained raw on the first other file, the half of it to choose by. Where there is no other file by what it gains on held-out
    rows. All gains are of the source alone beside the main file, but for the column that says so.
    """
    lines = sorted(_alone(report), key=lambda key: -_leading(report, *key).raw.mean)
    rows = [_line(report, *key) for key in lines]
    rows += [[source.name, "-", None, source.empty, *[None] * 12] for source in report.sources if source.empty]
    away = _away(report)
    there = away or report.data
    columns = [
        Column("source"),
        Column("entry", drop=3),
        Column("rows", form=",.0f", drop=6),
        Column(f"on {there}", "verdict", drop=4, prose=True),
        Column("gained, half to choose by", "gained_choosing_half", "+.4f", drop=8),
        Column("se", "gained_choosing_half_se", ".4f", drop=8),
        Column("gained, other half", "gained_other_half", "+.4f", drop=7),
        Column("se", "gained_other_half_se", ".4f", drop=7),
        Column(f"gained on {there}", "gained", "+.4f"),
        Column("se", "gained_se", ".4f"),
        Column("recalibrated", "gained_recalibrated", "+.4f", drop=2),
        Column("se", "gained_recalibrated_se", ".4f", drop=5),
        Column("held out", "gained_held_out", "+.4f", drop=1),
        Column("se", "gained_held_out_se", ".4f", drop=5),
        Column("a 1,000 rows", "gained_per_thousand_rows", "+.4f", drop=6),
        Column("a GPU hour", "gained_per_gpu_hour", "+.4f", drop=6),
    ]
    return Table(columns, rows)


def _line(report: WorthReport, entry: str, source: str) -> list[Cell]:
    own = {(c.area.data, c.area.part): c for c in report.contrasts if (c.entry, c.source, c.kind) == (entry, source, ALONE)}
    away = _away(report)
    held = own[report.data, HELD_OUT]
    there = own[away, ALL] if away else held
    halves = [own.get((away, part)) for part in (CHOOSE, REPORT)]
    facts = next(one for one in report.sources if one.name == source)
    hours = facts.gpu_seconds / 3600 if facts.gpu_seconds else None
    return [
        source,
        entry,
        there.rows,
        verdict(there.raw),
        *(value for half in halves for value in ((half.raw.mean, half.raw.error) if half else (None, None))),
        there.raw.mean,
        there.raw.error,
        there.recalibrated.mean,
        there.recalibrated.error,
        held.raw.mean,
        held.raw.error,
        1000 * there.raw.mean / there.rows,
        there.raw.mean / hours if hours else None,
    ]


def _alone(report: WorthReport) -> list[tuple[str, str]]:
    return list(dict.fromkeys((c.entry, c.source) for c in report.contrasts if c.kind == ALONE))


def _away(report: WorthReport) -> str:
    """The first file of another source; empty where there is none."""
    return next((c.area.data for c in report.contrasts if c.area.part == ALL), "")


def _leading(report: WorthReport, entry: str, source: str) -> Contrast:
    """The comparison that ranks a source."""
    own = {(c.area.data, c.area.part): c for c in report.contrasts if (c.entry, c.source, c.kind) == (entry, source, ALONE)}
    away = _away(report)
    return own.get((away, CHOOSE)) or own.get((away, ALL)) or own[report.data, HELD_OUT]


def _notes(report: WorthReport) -> list[str]:
    """What gains and errors are of."""
    seeds = ", ".join(map(str, report.seeds))
    lines = [
        f"log loss gained a row, in nats (above 0 is better), of {report.trainings} trainings; standard errors by prompts and "
        f"seeds {seeds}; '{NOT_TOLD}': the 95 % interval holds 0. Recalibrated: on other prompts of the same file."
    ]
    if report.without_chance:
        lines.append(
            f"{', '.join(report.without_chance)}: training has no seed, so its errors are of the held-out prompts alone, and "
            "on the curve of the rows that each seed drew"
        )
    return [*lines, _choice(report), *report.known_beforehand]


def _choice(report: WorthReport) -> str:
    """By which rows sources are ranked: the first of several is flattered there."""
    away = _away(report)
    halves = {c.area.part for c in report.contrasts if c.area.data == away}
    if {CHOOSE, REPORT} <= halves:
        return (
            f"ranked by one half of {away}'s prompts, where the first is flattered by the choice; all rows hold that half, too"
        )
    return "ranked by the rows that gains are reported on: that of the first is flattered by the choice"


def contrasts_table(report: WorthReport) -> Table:
    """Every comparison on every area, raw and recalibrated, with its 95 % interval."""
    columns = [
        Column("source"),
        Column("entry"),
        Column("beside"),
        Column("battles", "data"),
        Column("part"),
        Column("rows learned", "source_rows", ",.0f"),
        Column("log loss without", "log_loss_without", ".4f"),
        Column("with", "log_loss_with", ".4f"),
        Column("gained", form="+.4f"),
        Column("se", "gained_se", ".4f"),
        Column("from", "gained_low", "+.4f"),
        Column("to", "gained_high", "+.4f"),
        Column("told", "verdict"),
        Column("recalibrated", "gained_recalibrated", "+.4f"),
        Column("se of that", "gained_recalibrated_se", ".4f"),
        Column("told, recalibrated", "verdict_recalibrated"),
        Column("battles' rows", "rows", ",d"),
        Column("prompts", form=",d"),
        Column("seeds"),
    ]
    rows: list[list[Cell]] = []
    for c in report.contrasts:
        own, moved = c.raw, c.recalibrated
        rows.append(
            [
                *(c.source, c.entry, c.kind, c.area.data, c.area.part, c.rows, *c.log_loss),
                *(own.mean, own.error, own.low, own.high, verdict(own)),
                *(moved.mean, moved.error, verdict(moved)),
                *(own.rows, own.prompts, own.seeds),
            ]
        )
    return Table(columns, rows)


def curve_table(report: WorthReport) -> Table:
    """What so many rows of each source gain on each area.

    Rows are those that were given to a training, which leaves out those of held-out prompts among them.
    """
    columns = [
        Column("source"),
        Column("entry"),
        Column("battles", "data"),
        Column("part"),
        Column("rows given", "source_rows", ",d"),
        Column("gained", form="+.4f"),
        Column("se", "gained_se", ".4f"),
        Column("recalibrated", "gained_recalibrated", "+.4f"),
        Column("se of that", "gained_recalibrated_se", ".4f"),
    ]
    rows: list[list[Cell]] = [
        [
            *(p.source, p.entry, p.area.data, p.area.part, p.rows),
            *(p.raw.mean, p.raw.error, p.recalibrated.mean, p.recalibrated.error),
        ]
        for p in report.curve
    ]
    return Table(columns, rows)


def drowned_table(report: WorthReport) -> Table:
    """From how many rows on more rows of each source are not told from noise."""
    columns = [
        Column("source"),
        Column("entry", drop=1),
        Column("battles", "data", drop=2),
        Column("more rows gain nothing that is told from noise", "drowns_at", prose=True),
    ]
    rows: list[list[Cell]] = [
        [d.source, d.entry, d.area.title, "the most still gain" if d.at is None else f"from {d.at:,} on"]
        for d in report.drowned
        if d.area.part in (HELD_OUT, ALL)
    ]
    return Table(columns, rows)


def _areas(report: WorthReport) -> list[Area]:
    """Areas that figures show: held-out rows, and all of each other file."""
    found = dict.fromkeys((c.area.data, c.area.part) for c in report.contrasts if c.area.part in (HELD_OUT, ALL))
    return [Area(data=data, part=part) for data, part in found]


@styled
def worth_figure(report: WorthReport) -> Figure:
    """Log loss gained by each source with its 95 % interval, a panel an area.

    Raw and recalibrated; a source beside the main file alone and added last to all the others.
    """
    from matplotlib.figure import Figure

    areas = _areas(report)
    names = list(dict.fromkeys((c.entry, c.source, c.kind) for c in report.contrasts))[::-1]
    figure = Figure(figsize=(6.5 * len(areas), 1.6 + 0.45 * len(names)), layout="constrained")
    for axes, area in zip(figure.subplots(1, len(areas), squeeze=False)[0], areas, strict=True):
        own = {(c.entry, c.source, c.kind): c for c in report.contrasts if c.area == area}
        for shift, name, (color, marker, _) in zip((0.13, -0.13), ("raw", "recalibrated"), STYLES, strict=False):
            gains: list[Gain] = [getattr(own[key], name) for key in names]
            spread = [[g.mean - g.low for g in gains], [g.high - g.mean for g in gains]]
            places = [place + shift for place in range(len(names))]
            marks = {"fmt": marker, "color": color, "capsize": 3, "linewidth": 1}
            axes.errorbar([g.mean for g in gains], places, xerr=spread, label=f"{name}, 95 % interval", **marks)
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1, label="nothing gained")
        many = len(_entries(report)) > 1
        labels = [f"{source}\n{kind}" + (f", {entry}" if many else "") for entry, source, kind in names]
        axes.set_yticks(range(len(names)), labels, fontsize=8)
        axes.set(xlabel="log loss gained, nats", title=area.title)
        axes.set_ylim(-0.5, len(names) - 0.5)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
    entitle(figure, f"What sources gain beside {report.data}", "")
    return figure


@styled
def curve_figure(report: WorthReport) -> Figure:
    """Log loss gained, raw, against rows of a source, with 95 % intervals.

    A line a source, a panel an area and entry.

    A ring marks from where on more rows are not told from noise.
    """
    from matplotlib.figure import Figure

    panels = [(entry, area) for entry in _entries(report) for area in _areas(report)]
    figure = Figure(figsize=(6.5 * len(_areas(report)), 4.6 * len(_entries(report))), layout="constrained")
    grid = figure.subplots(len(_entries(report)), len(_areas(report)), squeeze=False)
    for axes, (entry, area) in zip(grid.ravel(), panels, strict=True):
        for place, source in enumerate(dict.fromkeys(p.source for p in report.curve)):
            _draw_curve(axes, report, entry, source, area, place)
        axes.axhline(0, color=GREY, linestyle="--", linewidth=1)
        axes.set(
            xlabel="rows of the source given; those of held-out prompts are not learned",
            ylabel="log loss gained, nats",
            title=f"{entry} on {area.title}",
        )
        axes.set_xscale("symlog", linthresh=SYMLOG_ROWS, base=2)
        ticks = sorted({0, *(p.rows for p in report.curve)})
        shown = [t for t, after in zip(ticks, [*ticks[1:], 0], strict=True) if not after or after > 1.3 * t]
        axes.set_xticks(shown, [f"{t:,}" for t in shown], fontsize=8, rotation=45)
        axes.minorticks_off()
        axes.grid()
    ring = {"color": GREY, "markerfacecolor": "none", "markersize": 14, "linestyle": "none"}
    if any(d.at is not None for d in report.drowned):
        grid[0, 0].plot([], [], "o", label="from here on more rows are not told from noise", **ring)
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
    entitle(figure, f"What so many rows of a source gain beside {report.data}", "")
    return figure


def _draw_curve(axes: Axes, report: WorthReport, entry: str, source: str, area: Area, place: int) -> None:
    points = [p for p in report.curve if (p.entry, p.source, p.area) == (entry, source, area)]
    if not points:
        return
    color, marker, line = STYLES[place % len(STYLES)]
    rows, means = [0, *(p.rows for p in points)], [0.0, *(p.raw.mean for p in points)]
    low, high = [0.0, *(p.raw.low for p in points)], [0.0, *(p.raw.high for p in points)]
    hollow = "white" if place >= len(STYLES) else color
    axes.plot(rows, means, color=color, marker=marker, linestyle=line, markerfacecolor=hollow, label=f"{source}, 95 % interval")
    axes.fill_between(rows, low, high, color=color, alpha=0.12, linewidth=0)
    at = next((d.at for d in report.drowned if (d.entry, d.source, d.area) == (entry, source, area)), None)
    if at is not None:
        axes.plot([at], [means[rows.index(at)]], "o", color=color, markerfacecolor="none", markersize=14, linestyle="none")


def _entries(report: WorthReport) -> list[str]:
    return list(dict.fromkeys(c.entry for c in report.contrasts))
