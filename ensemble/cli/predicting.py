"""`ensemble predict` and `evaluate`: carry out a plan within its budget, and judge it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble.cli.options import PlanFile
from zoo.cli.app import MOST_BAD, MaxBadRows, RunnerName
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.errors import ZooError, printable
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from zoo.pipeline.runners.chosen import Runner
    from zoo.pipeline.submissions import Sample

SampleColumns = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAMES", help="Columns of tables alone, or of --like: a=..., b=..., tie=..., id=...."),
]
LONGEST_DRAIN_SECONDS = 10.0  # for a terminal that is slow to take the last lines; one that takes none is not waited for


def predict(
    plan: PlanFile,
    battles: Annotated[
        Path | None, typer.Argument(help="File of battles; see `zoo data --help`. Not needed with --scores alone.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The submission, or the folder of tables. Default: submission.csv, or scores."),
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Another budget than the plan's: 9h, 5m, 90s.")] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", metavar="[MEMBER=]FILE", help="A member's table for these rows, made elsewhere. Repeatable."),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="With --scores alone: the ids to write. Default: the tables'.")
    ] = None,
    columns: SampleColumns = None,
    like: Annotated[
        Path | None, typer.Option("--like", help="The competition's sample submission: its columns are written, in its order.")
    ] = None,
    began: Annotated[
        str | None,
        typer.Option(
            "--started-at", help="When the hours began, if not with this command: Unix seconds or 2026-11-26T08:30+00:00."
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of checkpoints; may be read-only. Default: store in ZOO_HOME.")
    ] = None,
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="The members' tables of the battles: no blend, no budget, any --runner.")
    ] = False,
    runner: RunnerName = None,
) -> None:
    """Run the plan's members on the battles and write their blend, within the budget.

    Without battles the tables of --scores are blended by id, and nothing runs; a row that lacks a member gets the plan's
    fallback, and where the plan's trees read lengths, rows get the pool that the trees correct.

    Exit code 0: members are in the submission, a warning names those that are not in every row. 3: none is, every row is the
    plan's prior. 2: it cannot be done as asked; 1: the budget ended before anything was written.

    With --like a column called winner gets the likelier of A and B, spelled as the sample does.

    Example: ensemble predict plan.json test.csv -o submission.csv

    Example: ensemble predict plan.json --scores a=a-test.csv --scores b=b-test.csv --ids sample_submission.csv

    A file that takes more than one machine is scored by a cluster first, every row by every member, and then blended:

    Example: ensemble predict plan.json test.csv --scores-only --runner ray -o tables
    """
    from ensemble.members.files import named_files
    from zoo.pipeline.submissions import read_sample
    from zoo.pipeline.table_columns import parse_columns

    if scores_only:
        of_blends = {
            "--budget": budget,
            "--scores": scores,
            "--ids": ids,
            "--columns": columns,
            "--like": like,
            "--started-at": began,
        }
        _scores_only(plan, battles, output or Path("scores"), of_blends, store=store, runner=runner)
        return
    if runner is not None:
        raise ZooError("--runner: a budget is of one machine; give --scores-only with it, and blend its tables with --scores")
    output = output or Path("submission.csv")
    tables, named = named_files(scores or ()), None if columns is None else parse_columns(columns)
    if battles is None:
        of_runs = {"--budget": budget, "--started-at": began, "--store": store}
        if given := [option for option, value in of_runs.items() if value is not None]:
            raise ZooError(f"{given[0]}: nothing runs where tables alone are given; leave it out, or give the battles")
        sample = None if like is None else read_sample(like, named)
        _blend_tables(plan, tables, output, ids=ids, columns=named, like=sample)
        return
    if ids is not None or (columns is not None and like is None):
        raise ZooError("--ids and --columns: are for tables alone; leave the battles out, or these options")
    from zoo.targets import process_age_seconds

    started_at = time.monotonic() - process_age_seconds()
    from ensemble.predict.deadline import SHORTEST_RESERVE_SECONDS
    from ensemble.predict.run import predict as run
    from ensemble.predict.streams import drain
    from zoo.report.duration import parse_budget, parse_moment

    check_installed()
    seconds = None if budget is None else parse_budget(budget)
    if began is not None:  # a notebook's hours begin before its packages are installed
        started_at = min(started_at, time.monotonic() - (time.time() - parse_moment(began)))
    if store is not None and not store.is_dir():
        raise ZooError(f"--store {store}: no such folder; name the one that holds the checkpoints")
    sample = None if like is None else read_sample(like, named)
    done = run(plan, battles, output, budget_seconds=seconds, started_at=started_at, store=store, scores=tables, like=sample)
    from ensemble.report.record import RECORD_SECONDS, record_prediction

    print(printable("\n".join(done.summary()), keep="\n"))
    for warning in (*done.warnings, *filter(None, [done.last_line])):
        print(f"warning: {printable(warning)}", file=sys.stderr)
    left = done.budget_seconds - done.used_seconds - SHORTEST_RESERVE_SECONDS
    if left > RECORD_SECONDS:
        record_prediction(battles, done)
        left -= RECORD_SECONDS
    drain(min(LONGEST_DRAIN_SECONDS, left))
    raise typer.Exit(done.exit_code)


def _scores_only(
    plan: Path,
    battles: Path | None,
    folder: Path,
    of_blends: Mapping[str, object],
    *,
    store: Path | None,
    runner: Runner | None,
) -> None:
    """Write the members' tables, and say where they lie and how to blend them."""
    from ensemble.predict.scores_only import write_scores_only
    from zoo.pipeline.runners.session import running_on
    from zoo.settings import store_folder

    if given := [option for option, value in of_blends.items() if value is not None]:
        raise ZooError(f"{given[0]}: --scores-only blends nothing and has no end to keep to; leave one of them out")
    if battles is None:
        raise ZooError("--scores-only: give the battles to score")
    check_installed()
    with running_on(runner, store_folder(), say):
        tables = write_scores_only(plan, battles, folder, store=store, say=say)
    for table in tables:
        failed = f", {table.failed_rows:,} without probabilities" if table.failed_rows else ""
        print(printable(f"{table.path}  {table.rows:,} rows of {table.member}{failed}"))
    say(f"blend them: ensemble predict {plan} {' '.join(f'--scores {table.path}' for table in tables)}")


def _blend_tables(
    plan: Path,
    tables: dict[str, Path],
    output: Path,
    *,
    ids: Path | None,
    columns: Mapping[str, str] | None,
    like: Sample | None,
) -> None:
    """Write the blend of tables alone, and say which rows have which members."""
    from ensemble.predict.from_scores import predict_from_scores

    if not tables:
        raise ZooError("give the battles to predict, or the members' tables of them with --scores MEMBER=FILE")
    done = predict_from_scores(plan, tables, output, ids=ids, columns=columns, like=like, say=say)
    print(printable("\n".join(done.summary()), keep="\n"))
    for warning in done.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)


def evaluate(
    plan: PlanFile,
    battles: Annotated[Path, typer.Argument(help="The battles that were predicted, with their winners.")],
    submission: Annotated[Path, typer.Argument(help="What `ensemble predict` wrote.")],
    max_bad_rows: MaxBadRows = MOST_BAD,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """A submission's log loss beside uniform, the prior and each member alone.

    For generated battles also beside the best possible.

    Example: ensemble evaluate plan.json test.csv submission.csv
    """
    from ensemble.report.evaluate import evaluate as lines_of
    from ensemble.report.evaluate import evaluation_table
    from ensemble.report.record import record_evaluation

    style, started = style_of(output, as_json), time.monotonic()
    lines = lines_of(plan, battles, submission, say=say, most_bad=max_bad_rows)
    show([evaluation_table(lines)], style)
    record_evaluation(plan, battles, submission, lines, time.monotonic() - started)
