"""`zoo cost`: how long an entry takes for a file on a target, as low, likely and high."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.app import Name, TargetName
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.report.text import Cell, Column, Format, Page, Table, show

if TYPE_CHECKING:
    from zoo.cost.forecast import Forecast
    from zoo.cost.interval import Interval
    from zoo.cost.training import TrainingForecast

GIB = 2**30
N_FOLDS = 5  # as `zoo train` deals prompts unless told otherwise


def cost(
    name: Name,
    target: TargetName = "t4x2",
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of the file. Default: those of --lengths.")] = None,
    lengths: Annotated[
        Path | None, typer.Option("--lengths", help="Battles as long as those. Default: as the competition's.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="First score a sample of --lengths here: 90 s.")] = False,
    train: Annotated[bool, typer.Option("--train", help="What training on --rows costs, instead of scoring them.")] = False,
    folds: Annotated[
        int | None, typer.Option("--folds", min=1, max=N_FOLDS, help="With --train: of 5 folds, how many are trained (1).")
    ] = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Hours that an entry takes on a target.

    They are low, likely and high, from a measurement, or from shapes and published run times.

    About 80 in 100 true times lie between low and high. What was assumed, and in what the forecast goes beyond what was
    measured, is said below the table.

    Example: zoo cost llama-3-8b --target t4x2 --rows 25000

    Example: zoo cost smollm2-135m --target cpu --lengths test.csv --measure

    Example: zoo cost gemma-2-9b --train --target t4x2 --rows 5000 --folds 2
    """
    from zoo.cost.forecast import forecast
    from zoo.cost.lengths import file_of
    from zoo.cost.measure import measure as measure_sample
    from zoo.cost.measure import samples_folder
    from zoo.entries.load import load_entry
    from zoo.errors import ZooError
    from zoo.pipeline.weights import fetched_folder
    from zoo.settings import store_folder
    from zoo.targets import load_target

    style = style_of(output, as_json)
    if train and measure:
        raise ZooError("--measure is of scoring; a training that ran on such a machine is in the store, and --train reads it")
    if folds and not train:
        raise ZooError("--folds is of --train; scoring takes each row once")
    entry, machine, store = load_entry(name), load_target(target), store_folder()
    if train:
        from zoo.cost.training import forecast_training

        told = forecast_training(entry, machine, rows=rows, lengths=lengths, folds=folds or 1, n_folds=N_FOLDS, store=store)
        return show(training_page(told), style, data=told.model_dump(mode="json"))
    if measure and lengths is None:
        raise ZooError("--measure: give the battles to measure on with --lengths FILE")
    if measure and lengths is not None:
        check_installed()
        measure_sample(entry, machine, lengths, store, say=say)
    file = file_of(entry, lengths, rows, fetched_folder(entry, store))
    found = forecast(entry, machine, file, [store, samples_folder()])
    show(forecasts_page(found), style, data=[f.model_dump(mode="json") for f in found])


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

    def form(value: float) -> str:
        return f"{value / unit:.3g}"

    return [
        Column(f"{title} {which}", f"{key}_{which}", form, drop=drop and drop + (which != "likely"))
        for which in ("low", "likely", "high")
    ]


def interval_cells(interval: Interval | None) -> list[Cell]:
    """Low, likely and high; None where there is none."""
    return [None, None, None] if interval is None else [interval.low, interval.likely, interval.high]
