"""`zoo ladder`: what each step from the trained model to the served one costs in log loss."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.app import (
    MOST_BAD,
    Data,
    Fold,
    FoldRule,
    MaxBadRows,
    MaxRows,
    Name,
    Settings,
    Source,
    TargetName,
)
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.experiments.held import N_FOLDS, held_of
from zoo.report.text import Format, show


def ladder(
    name: Name,
    data: Data,
    target: TargetName = "cpu",
    fold: Fold = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into.")] = N_FOLDS,
    fold_rule: FoldRule = None,
    score_rows: MaxRows = None,
    settings: Settings = None,
    source: Source = None,
    max_bad_rows: MaxBadRows = MOST_BAD,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Log loss of base, adapter, merged, quantized and in vLLM on the same rows.

    The rows are held out; each step's cost stands beside it. Each quantized form is compared with the merged model.

    Stages that are missing are run first; a sample (`--score-rows`) is for the ladder alone, never a member. Exit code 1 where
    a step costs more than the entry's `ladder.max_ladder_loss`.

    Example: zoo ladder smollm2-135m --data battles.csv
    """
    from zoo.entries.load import load_entry, override
    from zoo.experiments.run import RunOptions, run_ladder
    from zoo.report.ladder import ladder_page, ladder_records
    from zoo.scores.ladder import check_gate
    from zoo.settings import store_folder

    check_installed()
    style, store = style_of(output, as_json), store_folder()
    entry, held = override(load_entry(name), settings or []), held_of(fold, folds, fold_rule, data, say=say)
    options = RunOptions(
        last="score",
        battles=data,
        target=target,
        held=held,
        score_rows=score_rows,
        diagnostic=True,
        source=source,
        most_bad=max_bad_rows,
    )
    steps, figure = run_ladder(entry, options, store, say=say)
    show(ladder_page(steps, figure), style, data=ladder_records(steps))
    check_gate(entry, steps)
