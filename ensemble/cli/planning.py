"""`ensemble build`, `frontier` and `show`: plans within a time budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.options import Asked, Budget, CalibrateOn, CalibrateRun, CalibrateScores, Parsimony, PlanFile, takes_asked
from ensemble.cli.posing import pose, score_files
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
    budget: Budget = "9h",
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
    from ensemble.cli.recalibrating import calibrated, calibration_asked, check_names
    from ensemble.plan import save_plan
    from ensemble.report.views import plan_page
    from ensemble.search.build import build_plan, plan_numbers
    from zoo.store import check_output
    from zoo.tracking.sync import log_build

    style = style_of(format_, as_json)
    calibration = calibration_asked(calibrate_on, calibrate_scores, run=run, max_bad_rows=asked.max_bad_rows)
    given = [] if calibration is None else [calibration.path, *calibration.scores.values()]
    check_output(output, asked.battles, asked.lengths, *given, *score_files(asked))
    members, request = pose(context, asked, budget, parsimony=parsimony, output=output)
    if calibration is not None:
        check_names(calibration, [*members.names, *members.left_out])
    plan = build_plan(members, request, say=say)
    save_plan(plan, output)
    if not asked.scores:  # a plan of files alone leaves nothing in the home
        used = {member.name for member in plan.members}
        artifacts = {name: f for name, f in zip(members.names, members.fingerprints, strict=True) if name in used}
        # The plan without its paths, never the file, whatever its name.
        log_build(plan.model_dump(mode="json"), plan_numbers(plan), artifacts)
    if calibration is not None:
        plan = calibrated(plan, output, calibration, record=not asked.scores)
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
    from ensemble.report.frontier import FILES, save_frontier
    from ensemble.report.views import frontier_table
    from ensemble.search.frontier import compute_frontier
    from zoo.store import check_output

    style = style_of(format_, as_json)
    for file in FILES:
        check_output(output / file, asked.battles, asked.lengths, *score_files(asked))
    members, request = pose(context, asked, output=output)
    found = compute_frontier(members, request, points=points, say=say)
    save_frontier(found, output)
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
