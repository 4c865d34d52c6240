"""Forecasts of scoring or training an entry on a target: tables, and what they assume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.text import Cell, Column, Page, Table, digits

if TYPE_CHECKING:
    from zoo.cost.forecast import Forecast
    from zoo.cost.interval import Interval
    from zoo.cost.training import TrainingForecast

GIB = 2**30


def forecasts_page(found: Sequence[Forecast]) -> Page:
    """Forecasts as a table, and below it what they assume and where they extrapolate."""
    first = found[0]
    unit_name, unit = time_unit(max(f.seconds.high for f in found))
    submitted = any(f.submission_seconds for f in found)
    with_bytes = any(f.peak_bytes for f in found)
    columns = [Column("variant"), Column("M tokens", "tokens", lambda n: f"{n / 1e6:.2f}", drop=6), Column("basis")]
    columns += interval_columns(unit_name, "seconds", unit, drop=0)
    columns += interval_columns("submitted", "submission_seconds", unit, drop=2) if submitted else []
    columns += interval_columns("GiB", "peak_bytes", GIB, drop=4) if with_bytes else []
    rows: list[list[Cell]] = []
    for f in found:
        cells: list[Cell] = [f.variant.slug, f.tokens, f.basis, *interval_cells(f.seconds)]
        cells += interval_cells(f.submission_seconds) if submitted else []
        rows.append(cells + (interval_cells(f.peak_bytes) if with_bytes else []))
    page: list[str | Table] = [f"{first.entry} on {first.target}: {first.rows:,} rows", "", Table(columns, rows)]
    if submitted:
        page += ["", "submitted: as a Kaggle submission, which took longer than an interactive run on such a machine"]
    for title, notes in (("assumed", [f.assumed for f in found]), ("goes beyond", [f.extrapolates for f in found])):
        told: dict[str, list[str]] = {}
        for f, each in zip(found, notes, strict=True):
            for note in each:
                told.setdefault(note, []).append(f"{f.basis} {f.variant.slug}")
        page += ["", f"{title}:"] if told else []
        page += [f"- {note}" + (f" ({', '.join(who)})" if len(who) < len(found) else "") for note, who in told.items()]
    return page


def training_page(told: TrainingForecast) -> Page:
    """A training's forecast: ways over the cards, what fits a notebook, what it rests on."""
    unit_name, unit = time_unit(max(way.seconds.high for way in told.ways))
    rows: list[list[Cell]] = [[way.name, *interval_cells(way.seconds)] for way in told.ways]
    speed = told.tokens_per_second
    folds = "1 fold" if told.folds == 1 else f"{told.folds} folds"
    page: list[str | Table] = [
        f"training {told.entry} on {told.target}: {folds} of {told.rows:,} rows, {told.tokens / 1e6:.2f} M tokens each",
        f"one card: {speed.likely:,.0f} tokens/s ({speed.low:,.0f} to {speed.high:,.0f}), {told.basis}",
        "",
        Table([Column("way"), *interval_columns(unit_name, "seconds", unit, drop=0)], rows),
        "",
        *(
            f"in {f.hours} hours, {told.ways[0].name}: {f.rows:,} rows likely, {f.safe_rows:,} nine times in ten"
            for f in told.fits
        ),
        f"memory: {told.memory}",
    ]
    for title, notes in (("assumed", told.assumed), ("goes beyond", told.extrapolates)):
        page += ["", f"{title}:", *(f"- {note}" for note in notes)] if notes else []
    return page


def time_unit(seconds: float) -> tuple[str, float]:
    """A unit in which so many seconds read well, and its seconds."""
    return next(((name, unit) for name, unit in (("hours", 3600.0), ("minutes", 60.0)) if seconds >= unit), ("seconds", 1.0))


def interval_columns(title: str, key: str, unit: float, *, drop: int) -> list[Column]:
    """Columns low, likely and high of an interval, shown in `unit` with three digits.

    Likely is dropped last.
    """
    three = digits(3, all_of_them=True)
    return [
        Column(
            f"{title} {which}", f"{key}_{which}", lambda value: three(value / unit), drop=drop and drop + (which != "likely")
        )
        for which in ("low", "likely", "high")
    ]


def interval_cells(interval: Interval | None) -> list[Cell]:
    """Low, likely and high; None where there is none."""
    return [None, None, None] if interval is None else [interval.low, interval.likely, interval.high]
