"""`zoo cost`: how long an entry takes for a file on a target, as low, likely and high."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import Name, Settings, TargetName
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.errors import ZooError
from zoo.experiments.held import N_FOLDS
from zoo.report.text import Format, show


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
    settings: Settings = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Hours that an entry takes on a target.

    They are low, likely and high, from a measurement, or from shapes and published run times.

    About 80 in 100 true times lie between low and high. What was assumed, and in what the forecast goes beyond what was
    measured, is said below the table.

    Example: zoo cost llama-3-8b --target t4x2 --rows 25000

    Example: zoo cost smollm2-135m --target cpu --lengths test.csv --measure

    Example: zoo cost gemma-2-9b --target t4x2 --set quantize.scheme=int8

    Example: zoo cost gemma-2-9b --train --target t4x2 --rows 5000 --folds 2
    """
    from zoo.cost.asked import forecast_file
    from zoo.entries.load import load_entry, override
    from zoo.report.cost import forecasts_page, training_page
    from zoo.targets import load_target

    if train and measure:
        raise ZooError("--measure is of scoring; a training that ran on such a machine is in the store, and --train reads it")
    if folds and not train:
        raise ZooError("--folds is of --train; scoring takes each row once")
    style, machine = style_of(output, as_json), load_target(target)
    entry = override(load_entry(name), settings or [])
    if train:
        from zoo.cost.training import forecast_training
        from zoo.settings import store_folder

        of_folds = {"folds": folds or 1, "n_folds": N_FOLDS}
        told = forecast_training(entry, machine, rows=rows, lengths=lengths, **of_folds, store=store_folder())
        return show(training_page(told), style, data=told.model_dump(mode="json"))
    if measure:
        check_installed()
    found = forecast_file(entry, machine, rows=rows, lengths=lengths, measured=measure, say=say)
    show(forecasts_page(found), style, data=[f.model_dump(mode="json") for f in found])
