"""`zoo cost`: how long an entry takes for a file on a target, as low, likely and high."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.report.text import say

if TYPE_CHECKING:
    from zoo.cost.forecast import Forecast
    from zoo.cost.interval import Interval

GIB = 2**30


def cost(
    name: Annotated[str, typer.Argument(help="Entry, one of `zoo list`.")],
    target: Annotated[str, typer.Option("--target", help="Machine that serves, one of `zoo target list`.")] = "t4x2",
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of the file. Default: those of --lengths.")] = None,
    lengths: Annotated[
        Path | None, typer.Option("--lengths", help="CSV of battles as long as those. Default: as the competition's.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="First score a sample of --lengths here: 90 s.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Forecasts as JSON.")] = False,
) -> None:
    """Hours that an entry takes on a target.

    They are low, likely and high, from a measurement, or from shapes and published run times.

    About 80 in 100 true times lie between low and high. What was assumed, and in what the forecast goes beyond what was
    measured, is said below the table.

    Example: zoo cost llama-3-8b --target t4x2 --rows 25000

    Example: zoo cost smollm2-135m --target cpu --lengths test.csv --measure
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

    entry, machine, store = load_entry(name), load_target(target), store_folder()
    if measure and lengths is None:
        raise ZooError("--measure: give the battles to measure on with --lengths FILE")
    if measure and lengths is not None:
        measure_sample(entry, machine, lengths, store, say=say)
    file = file_of(entry, lengths, rows, fetched_folder(entry, store))
    found = forecast(entry, machine, file, [store, samples_folder()])
    typer.echo(json.dumps([f.model_dump(mode="json") for f in found], indent=1) if as_json else forecasts_text(found))


def forecasts_text(found: Sequence[Forecast]) -> str:
    """Forecasts as a table, and below it what they assume and where they extrapolate."""
    from zoo.report.text import text_table

    first = found[0]
    name, unit = time_unit(max(f.seconds.high for f in found))
    headers = ["variant", "M tokens", "basis", f"{name} low", "likely", "high"]
    submitted = any(f.submission_seconds for f in found)
    with_bytes = any(f.peak_bytes for f in found)
    headers += ["submitted low", "likely", "high"] if submitted else []
    headers += ["GiB low", "likely", "high"] if with_bytes else []
    rows = []
    for f in found:
        cells = [f.variant.slug, f"{f.tokens / 1e6:.2f}", f.basis, *cells_of(f.seconds, unit)]
        cells += cells_of(f.submission_seconds, unit) if submitted else []
        rows.append(cells + (cells_of(f.peak_bytes, GIB) if with_bytes else []))
    lines = [f"{first.entry} on {first.target}: {first.rows:,} rows", "", text_table(headers, rows)]
    if submitted:
        lines += [
            "",
            "submitted: as a Kaggle submission, which took longer than an interactive run on such a machine",
        ]
    for title, notes in (("assumed", [f.assumed for f in found]), ("goes beyond", [f.extrapolates for f in found])):
        told: dict[str, list[str]] = {}
        for f, each in zip(found, notes, strict=True):
            for note in each:
                told.setdefault(note, []).append(f"{f.basis} {f.variant.slug}")
        lines += ["", f"{title}:"] if told else []
        lines += [f"- {note}" + (f" ({', '.join(who)})" if len(who) < len(found) else "") for note, who in told.items()]
    return "\n".join(lines)


def time_unit(seconds: float) -> tuple[str, float]:
    """A unit in which so many seconds read well, and its seconds."""
    return next(((name, unit) for name, unit in (("hours", 3600.0), ("minutes", 60.0)) if seconds >= unit), ("seconds", 1.0))


def cells_of(interval: Interval | None, unit: float) -> list[str]:
    """Low, likely and high in `unit`, three digits each; blanks where there is none."""
    if interval is None:
        return ["", "", ""]
    return [f"{value / unit:.3g}" for value in (interval.low, interval.likely, interval.high)]
