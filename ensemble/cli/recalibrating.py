"""`ensemble recalibrate`: a plan for battles of another kind, by a few labelled ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble.cli.options import PlanFile
from zoo.cli.app import MOST_BAD, MaxBadRows
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from ensemble.plan import Plan
    from ensemble.predict.missing import Labelled


def recalibrate(
    plan: PlanFile,
    labels: Annotated[Path, typer.Option("--labels", help="Labelled battles of the kind that will be predicted; 50 do.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the new plan goes. Default: PLAN-recalibrated.json.")
    ] = None,
    scores: Annotated[
        list[str] | None, typer.Option("--scores", help="MEMBER=FILE: its table for these battles. Repeatable.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Run the members whose probabilities are nowhere.")] = False,
    max_bad_rows: MaxBadRows = MOST_BAD,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Fit a plan's temperature and tie bias to labelled battles of another kind, as a new plan.

    What members say of these battles is taken from --scores, from a finished `ensemble predict` of them, or from the store.
    Rows that the plan was fitted on are left out and counted. The gain is judged by prompt folds; a calibration that surely
    hurts is not taken, and that is said. The plan that goes in stays as it is, and predictions of the new one find what
    its members have said already.

    Example: ensemble recalibrate plan.json --labels lmsys_dev.csv --run

    Example: ensemble recalibrate plan.json --labels votes.csv --scores words=words_on_votes.csv -o for_votes.json
    """
    from ensemble.members.files import named_files
    from ensemble.plan import load_plan, save_plan
    from ensemble.predict.missing import Labelled
    from ensemble.predict.recalibrate import recalibrate as fit
    from ensemble.report.record import record_recalibration
    from ensemble.report.shift import calibration_table, told_of
    from zoo.store import check_output

    style, started, tables = style_of(format_, as_json), time.monotonic(), named_files(scores or ())
    output = output or plan.with_name(f"{plan.stem}-recalibrated.json")
    check_output(output, plan, labels, *tables.values())
    new = fit(load_plan(plan), plan, Labelled(labels, tables, run, max_bad_rows), say=say)
    save_plan(new, output)
    found = new.calibration
    assert found is not None
    record_recalibration(new, time.monotonic() - started)
    show([told_of(found), "", calibration_table(found)], style, data=found.model_dump(mode="json"))
    say(f"wrote {output}")


def calibration_asked(labels: Path | None, scores: Sequence[str] | None, *, run: bool, max_bad_rows: float) -> Labelled | None:
    """What `build` is asked to calibrate on; None where it is not.

    ZooError for what cannot be right: no build's time is spent before that is known.
    """
    from ensemble.members.files import labelled_file, named_files
    from ensemble.predict.missing import Labelled
    from zoo.reading import check_ordinary

    tables = named_files(scores or (), "--calibrate-scores")
    if labels is None:
        if run or tables:
            option = "--run" if run else "--calibrate-scores"
            raise ZooError(f"{option}: is for --calibrate-on; give that with labelled battles, or leave {option} out")
        return None
    labelled_file(labels, most_bad=max_bad_rows)
    for path in tables.values():
        check_ordinary(path, mend="give a file")
    return Labelled(labels, tables, run, max_bad_rows)


def check_names(asked: Labelled, candidates: Sequence[str]) -> None:
    """ZooError where a table of --calibrate-scores is of nobody who may be in the plan."""
    for name, path in asked.scores.items():
        if name not in candidates:
            raise ZooError(f"--calibrate-scores {name}={path}: no candidate is called so; there are {', '.join(candidates)}")


def calibrated(plan: Plan, path: Path, asked: Labelled, *, record: bool = True) -> Plan:
    """The plan of a build, which lies at `path`, calibrated; it takes that one's place.

    `record`: whether MLflow is told. ZooError where it cannot be done: the plan that was built stays.
    """
    from dataclasses import replace

    from ensemble.plan import save_plan
    from ensemble.predict.recalibrate import recalibrate as fit
    from ensemble.report.record import record_recalibration

    started = time.monotonic()
    names = [member.name for member in plan.members]
    tables = {name: table for name, table in asked.scores.items() if name in names}
    for name in asked.scores.keys() - tables.keys():
        say(f"{name}: is not in the plan; its table of --calibrate-scores is left alone")
    try:
        new = fit(plan, path, replace(asked, scores=tables), say=say)
    except ZooError as error:
        known = "".join(f" --scores {name}={table}" for name, table in tables.items())
        mend = f"ensemble recalibrate {path} --labels {asked.path}{known}"
        raise ZooError(f"{error}; {path} is written without calibration: these are options of `{mend}`") from error
    save_plan(new, path)
    if record:
        record_recalibration(new, time.monotonic() - started)
    return new
