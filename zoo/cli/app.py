"""The `zoo` app, and the arguments and options that several of its commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import new_app
from zoo.cli.cost import cost
from zoo.cli.data import data_app
from zoo.cli.ladder import ladder
from zoo.cli.targets import target_app

app = new_app(
    "A model zoo for preference prediction: train, merge, quantize and score models that say which of two answers wins.\n\n"
    "A first run:  zoo data sample battles.csv --rows 400;  zoo run lexical --data battles.csv;  zoo leaderboard"
)
Name = Annotated[str, typer.Argument(help="Entry, one of `zoo list`.")]
Data = Annotated[Path, typer.Option("--data", help="CSV of labelled battles in the competition's columns.")]
TargetName = Annotated[str, typer.Option("--target", help="Machine that serves, one of `zoo target list`.")]
Fold = Annotated[int | None, typer.Option("--fold", min=0, help="Fold that is held out; folds go by prompt. Default: 0.")]
Folds = Annotated[
    int | None, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into (5); without --fold: run all.")
]
Average = Annotated[
    bool, typer.Option("--average", help="With --folds: then one checkpoint of all folds' averaged adapters, for serving.")
]
MaxRows = Annotated[int | None, typer.Option("--score-rows", min=1, help="Score at most this many held-out rows.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the entry: train.epochs=2. Repeatable.")]
Source = Annotated[str | None, typer.Option("--source", help="Where weights come from: hub, package, or a model folder.")]
Emulated = Annotated[
    str | None,
    typer.Option("--as", help="Score within a smaller target's memory, with its kernels: t4x2. Its speed is not measured."),
]


app.add_typer(data_app, name="data")


app.add_typer(target_app, name="target")


app.command("cost")(cost)


app.command("ladder")(ladder)


class Format(StrEnum):
    """How a table is written."""

    table = "table"
    markdown = "markdown"
    json = "json"
