"""`zoo cost`: how long an entry takes for a file on a target, as low, likely and high."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import Name, TargetName
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.report.text import Format, show


def cost(
    name: Name,
    target: TargetName = "t4x2",
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of the file. Default: those of --lengths.")] = None,
    lengths: Annotated[
        Path | None, typer.Option("--lengths", help="Battles as long as those. Default: as the competition's.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="First score a sample of --lengths here: 90 s.")] = False,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Hours that an entry takes on a target.

    They are low, likely and high, from a measurement, or from shapes and published run times.

    About 80 in 100 true times lie between low and high. What was assumed, and in what the forecast goes beyond what was
    measured, is said below the table.

    Example: zoo cost llama-3-8b --target t4x2 --rows 25000

    Example: zoo cost smollm2-135m --target cpu --lengths test.csv --measure
    """
    from zoo.cost.asked import forecast_file
    from zoo.entries.load import load_entry
    from zoo.report.cost import forecasts_page
    from zoo.targets import load_target

    if measure:
        check_installed()
    style = style_of(output, as_json)
    found = forecast_file(load_entry(name), load_target(target), rows=rows, lengths=lengths, measured=measure, say=say)
    show(forecasts_page(found), style, data=[f.model_dump(mode="json") for f in found])
