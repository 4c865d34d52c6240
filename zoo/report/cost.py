"""Forecasts of what an entry takes on a target, as a table with what they assume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.text import Cell, Column, Page, Table

if TYPE_CHECKING:
    from zoo.cost.forecast import Forecast
    from zoo.cost.interval import Interval

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


def time_unit(seconds: float) -> tuple[str, float]:
    """A unit in which so many seconds read well, and its seconds."""
    return next(((name, unit) for name, unit in (("hours", 3600.0), ("minutes", 60.0)) if seconds >= unit), ("seconds", 1.0))


def interval_columns(title: str, key: str, unit: float, *, drop: int) -> list[Column]:
    """Columns low, likely and high of an interval, shown in `unit` with three digits.

    Likely is dropped last.
    """

    def form(value: float) -> str:
        return f"{value / unit:.3g}"

    return [
        Column(f"{title} {which}", f"{key}_{which}", form, drop=drop and drop + (which != "likely"))
        for which in ("low", "likely", "high")
    ]


def interval_cells(interval: Interval | None) -> list[Cell]:
    """Low, likely and high; None where there is none."""
    return [None, None, None] if interval is None else [interval.low, interval.likely, interval.high]
