"""`ensemble recalibrate`: a plan for battles of another kind, by a few labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.options import PlanFile
from zoo.cli.app import MOST_BAD, MaxBadRows
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.report.text import Format, show


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
    from ensemble.predict.missing import Labelled
    from ensemble.report.planned import recalibrated, recalibrated_path
    from ensemble.report.shift import calibration_table, told_of

    style, tables = style_of(format_, as_json), named_files(scores or ())
    output = output or recalibrated_path(plan)
    found = recalibrated(plan, Labelled(labels, tables, run, max_bad_rows), output, say=say).calibration
    assert found is not None
    show([told_of(found), "", calibration_table(found)], style, data=found.model_dump(mode="json"))
    say(f"wrote {output}")
