"""The `zoo` app, and the arguments and options that several of its commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import complete_entry, complete_target, new_app
from zoo.experiments.held import Rule
from zoo.pipeline.runners.chosen import Runner

app = new_app(
    """A model zoo for preference prediction: train, merge, quantize and score models that say which of two answers wins.

    A first run:

    Example: zoo data sample battles.csv --rows 400

    Example: zoo run lexical --data battles.csv

    Example: zoo leaderboard
    """,
)

MOST_BAD = 0.1  # as zoo.data.usable has it; help imports no pandas
Name = Annotated[str, typer.Argument(help="Entry, one of `zoo list`.", autocompletion=complete_entry)]
Data = Annotated[Path, typer.Option("--data", help="Labelled battles: CSV, parquet or JSONL; see `zoo data --help`.")]
TargetName = Annotated[
    str, typer.Option("--target", help="Machine that serves, one of `zoo target list`.", autocompletion=complete_target)
]
Fold = Annotated[int | None, typer.Option("--fold", min=0, help="Fold that is held out; folds go by prompt. Default: 0.")]
FoldRule = Annotated[
    Rule | None,
    typer.Option(
        "--fold-rule",
        metavar="RULE",
        help="Near-copies of a prompt share a fold (the default, where folds allow it), or each prompt goes alone.",
    ),
]
MaxRows = Annotated[
    int | None,
    typer.Option("--score-rows", min=1, help="Score at most this many held-out rows; the lexical entry always scores all."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the entry: train.epochs=2. Repeatable.")]
MaxBadRows = Annotated[float, typer.Option("--max-bad-rows", help="Stop where a larger share of the battles cannot be used.")]
Source = Annotated[str | None, typer.Option("--source", help="Where weights come from: hub, package, or a model folder.")]
RunnerName = Annotated[
    Runner | None,
    typer.Option("--runner", metavar="RUNNER", help="Where it runs: local, ray or slurm. Default: ZOO_RUNNER, or local."),
]
