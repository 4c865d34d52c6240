"""`zoo data judge`: what the zoo's own trained entries say of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import Data, RunnerName
from zoo.cli.base import AsJson, Output, complete_entry, complete_target, say, style_of
from zoo.cli.installed import check_installed
from zoo.report.text import Format, show


def judge(
    pairs: Annotated[Path, typer.Argument(help="Pairs to judge: of `zoo data mine`, or any battles.")],
    judge: Annotated[
        list[str],
        typer.Option(
            "--judge",
            metavar="ENTRY",
            help="An entry whose folds are trained on --data, ENTRY@merge, or an artifact of one of them. Repeatable.",
            autocompletion=complete_entry,
        ),
    ],
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Table to write: .csv, .csv.gz or .parquet; a report goes beside.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="Machine that serves. Default: as the folds were scored.", autocompletion=complete_target
        ),
    ] = None,
    runner: RunnerName = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Have trained entries judge pairs, each by the models that have not seen its prompt.

    A pair whose prompt is one of --data, or a near-copy, is judged by the model of the fold that held it out; any other by the
    mean of all folds' models, but for those that learned it from extra files. The battles of --data are judged out of fold. The
    table is one for `zoo data label`. What a killed command had judged is kept: the same command goes on.

    Example: zoo data judge pairs.csv.gz --judge lexical --data human.csv -o verdicts.parquet

    Example: zoo data label pairs.csv.gz --judge verdicts.parquet --human human.csv -o labelled.csv.gz
    """
    from zoo.cli.made import ENTRY, check_made
    from zoo.data.made import VERDICTS, copy_out
    from zoo.experiments.judge import judge_pairs
    from zoo.pipeline.runners.session import running_on
    from zoo.report.judged import judged_page
    from zoo.settings import store_folder

    check_installed()
    style = style_of(output, as_json)
    check_made(out, pairs, data)
    with running_on(runner, store_folder(), say):
        artifact = judge_pairs(judge, pairs, data, store_folder(), entry=ENTRY, target=target, say=say)
    beside = copy_out(artifact, out, VERDICTS)
    say(f"{out}: from {artifact.path.name}")
    report = json.loads(beside.read_bytes())
    show(judged_page(report, out, beside), style, data=report)
