"""`ensemble recalibrate`: a plan for battles of another kind, by a few labelled ones."""

from __future__ import annotations

import time
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


def calibrated(plan: Plan, path: Path, labels: Path, max_bad_rows: float) -> Plan:
    """The plan of a build, which lies at `path`, calibrated; it takes that one's place.

    ZooError where that cannot be: the plan that was built stays.
    """
    from ensemble.plan import save_plan
    from ensemble.predict.missing import Labelled
    from ensemble.predict.recalibrate import recalibrate as fit
    from ensemble.report.record import record_recalibration

    started = time.monotonic()
    try:
        new = fit(plan, path, Labelled(labels, most_bad=max_bad_rows), say=say)
    except ZooError as error:
        mend = f"ensemble recalibrate {path} --labels {labels}"
        raise ZooError(f"{error}; {path} is written without calibration: these are options of `{mend}`") from error
    save_plan(new, path)
    record_recalibration(new, time.monotonic() - started)
    return new
