"""`ensemble build`, `frontier` and `show`: plans within a time budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.options import (
    Asked,
    Budget,
    CalibrateOn,
    CalibrateRun,
    CalibrateScores,
    Parsimony,
    PlanFile,
    is_default,
    takes_asked,
)
from ensemble.search.pose import BUDGET
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Format
from zoo.report.text import show as show_page

FrontierFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder for frontier.json and frontier.png.")]
Points = Annotated[int, typer.Option("--points", min=2, help="How many budgets, from the cheapest plan to all members.")]


@takes_asked
def build(
    *,
    context: typer.Context,
    budget: Budget = BUDGET,
    asked: Asked,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the plan goes.")] = Path("plan.json"),
    parsimony: Parsimony = False,
    calibrate_on: CalibrateOn = None,
    calibrate_scores: CalibrateScores = None,
    run: CalibrateRun = False,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Find the best blend of the scored members that fits the budget, as a plan.

    Example: ensemble build --budget 9h --target t4x2

    Example: ensemble build --budget 5m --target cpu --rows 200 --data battles.csv -o plan.json

    Members that were scored elsewhere are priced by what `zoo cost` forecasts for the target, and the margin says how far that
    may be off. Tables that the zoo did not make are priced by --seconds or --like.

    Example: ensemble build --exclude lexical@ab --prefer 0123456789abcdef

    Example: ensemble build --robust source --calibrate-on votes_of_the_target_kind.csv --run

    Example: ensemble build --target t4x2 --like theirs=llama-3-8b@ab-2048 --seconds small=40m

    Example: ensemble build --scores a.csv --scores mine=b.parquet --labels y.csv
    """
    from ensemble.members.files import named_files
    from ensemble.report.planned import calibration_asked, make_plan
    from ensemble.report.views import plan_page

    style, options = style_of(format_, as_json), asked.options(context)
    tables = named_files(calibrate_scores or (), "--calibrate-scores")
    calibration = calibration_asked(calibrate_on, tables, run=run, max_bad_rows=asked.max_bad_rows)
    bound = None if is_default(context, "budget") else budget
    plan = make_plan(options, bound, output, parsimony=parsimony, calibration=calibration, say=say)
    show_page(plan_page(plan), style, data=plan.model_dump(mode="json"))
    say(f"wrote {output}")


@takes_asked
def frontier(
    *,
    context: typer.Context,
    asked: Asked,
    output: FrontierFolder = Path("frontier"),
    points: Points = 8,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Log loss against budget for the whole range at once.

    A table, a figure and JSON, with each plan on it.

    Example: ensemble frontier --target t4x2 --points 12
    """
    from ensemble.report.frontier import FILES
    from ensemble.report.planned import make_frontier
    from ensemble.report.views import frontier_table

    style = style_of(format_, as_json)
    found = make_frontier(asked.options(context), output, points=points, say=say)
    show_page([frontier_table(found)], style, data=[point.model_dump(mode="json") for point in found])
    say("wrote " + " and ".join(str(output / file) for file in FILES))


def show(
    plan: PlanFile = Path("plan.json"),
    format_: Output = Format.table,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write it as one page that needs nothing else.")] = None,
) -> None:
    """A plan for people: its members, and why these; schedule, log loss, what others reach.

    `--json` and `--html` give all of it.

    Example: ensemble show plan.json

    Example: ensemble show plan.json --html plan.html
    """
    from ensemble.plan import load_plan
    from ensemble.report.views import plan_page

    style = style_of(format_, as_json)
    if html is not None and style is not Format.table:
        raise ZooError("--html and --json or --format: give one of them")
    if html is not None:
        from zoo.store import check_output

        check_output(html, plan)
    loaded = load_plan(plan)
    if html is not None:
        from ensemble.report.page import plan_html
        from zoo.settings import home
        from zoo.store import write_atomic

        write_atomic(html, plan_html(loaded, home() / "store"))
        say(f"wrote {html}")
        return
    show_page(plan_page(loaded), style, data=loaded.model_dump(mode="json"))
