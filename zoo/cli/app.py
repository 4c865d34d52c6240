"""The `zoo` app, and the arguments and options that several of its commands share."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.base import complete_entry, complete_target, new_app, say
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.contracts import Held


class Rule(StrEnum):
    """How prompts are dealt into folds; `prompts` is what requests without a rule mean."""

    near_prompts = "near-prompts-1"
    prompts = "prompts"


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


def held_of(fold: int | None, folds: int, rule: Rule | None, data: Path) -> Held:
    """The fold that the options of folds hold out; ZooError where there is none.

    Without a rule the battles of `data` say which one serves.
    """
    from zoo.contracts import Held

    if fold is not None and fold >= folds:
        raise ZooError(f"--fold {fold}: folds are numbered 0 to {folds - 1}")
    rule = rule or _rule_of(data, folds)
    return Held(n_folds=folds, fold=fold or 0, rule=None if rule is Rule.prompts else rule.value)


def _rule_of(data: Path, folds: int) -> Rule:
    from zoo.data.battles import read_battles
    from zoo.data.splits import rule_that_serves

    with suppress(ZooError):  # a file that cannot be read is told of where it is used
        if rule_that_serves(read_battles(data).frame, folds) is None:
            say(
                f"{data.name}: its prompts are too few groups of near-copies for {folds} folds, so each prompt goes alone "
                "(--fold-rule prompts); a held-out prompt may have near-copies among those that are learned from"
            )
            return Rule.prompts
    return Rule.near_prompts
