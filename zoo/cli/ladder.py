"""`zoo ladder`: what each step from the trained model to the served one costs in log loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.report.text import say

if TYPE_CHECKING:
    from zoo.contracts import Entry, Request


def ladder(
    name: Annotated[str, typer.Argument(help="Entry, one of `zoo list`.")],
    data: Annotated[Path, typer.Option("--data", help="CSV of labelled battles in the competition's columns.")],
    target: Annotated[str, typer.Option("--target", help="Machine that serves, one of `zoo target list`.")] = "cpu",
    fold: Annotated[int, typer.Option("--fold", min=0, help="Fold that is held out.")] = 0,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into.")] = 5,
    score_rows: Annotated[int | None, typer.Option("--score-rows", min=1, help="Score at most so many held-out rows.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the entry. Repeatable.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Weights: hub, package, or a model folder.")] = None,
) -> None:
    """Log loss of base, adapter, merged, AWQ and AWQ in vLLM on the same rows.

    The rows are held out; each step's cost stands beside it.

    Stages that are missing are run first. Exit code 1 where a step costs more than the entry's `ladder.max_ladder_loss`.
    """
    from zoo.contracts import Held, Selection
    from zoo.entries.load import load_entry, override
    from zoo.errors import ZooError
    from zoo.experiments.run import run_chain
    from zoo.pipeline.chain import battles_input, chain, ladder_request
    from zoo.settings import store_folder

    if fold >= folds:
        raise ZooError(f"--fold {fold}: folds are numbered 0 to {folds - 1}")
    entry, store = override(load_entry(name), settings or []), store_folder()
    held, selection = Held(n_folds=folds, fold=fold), Selection(max_rows=score_rows)
    requests = chain(entry, battles_input(data), target, store, held=held, selection=selection, source=source)
    ladder_request(entry, requests, store)  # an entry without a ladder is refused before hours are spent
    run_chain(requests, entry, store, say=say)
    climb(entry, requests)


def climb(entry: Entry, requests: Sequence[Request]) -> None:
    """Run the ladder of a finished chain, print it, and hold it against the entry's gate."""
    from zoo.experiments.run import run_chain
    from zoo.pipeline.chain import ladder_request
    from zoo.report.ladder import ladder_table
    from zoo.scores.ladder import check_gate, steps_from_metrics
    from zoo.settings import store_folder

    store = store_folder()
    artifact = run_chain([ladder_request(entry, requests, store)], entry, store, say=say)[-1]
    steps = steps_from_metrics(artifact.manifest.metrics)
    typer.echo(ladder_table(steps))
    typer.echo(artifact.path / "ladder.png")
    check_gate(entry, steps)
