"""`ensemble build`, `frontier` and `show`: plans within a time budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.base import AsJson, Output, complete_target, say, style_of
from zoo.cost.price import COMPETITION_ROWS
from zoo.report.text import Format
from zoo.report.text import show as show_page

if TYPE_CHECKING:
    from ensemble.members.table import Members, Table
    from ensemble.search.decide import BuildRequest
    from ensemble.search.with_optuna import SearchLimits

Budget = Annotated[str, typer.Option("--budget", help="Time of one whole prediction: 9h, 1h30m, 5m, 90s.")]
TargetName = Annotated[
    str, typer.Option("--target", help="Machine that predicts, one of `zoo target list`.", autocompletion=complete_target)
]
Rows = Annotated[int, typer.Option("--rows", min=1, help="Rows of the file to be predicted.")]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Predicted seconds are multiplied by it. Default: the target's.")
]
Lengths = Annotated[Path | None, typer.Option("--lengths", help="CSV of battles whose lengths are those to be predicted.")]
BattlesFile = Annotated[
    Path | None, typer.Option("--data", "--battles", help="The labelled battles that the members were scored on.")
]
Include = Annotated[list[str] | None, typer.Option("--include", help="Keep this member though it looks in-sample. Repeatable.")]
Alias = Annotated[
    str | None,
    typer.Option("--alias", help="Only members whose checkpoint has this alias: champion, candidate; see `zoo promote`."),
]
WholeFile = Annotated[bool, typer.Option("--whole-file", help="Every member sees every row; no gates.")]
NoParsimony = Annotated[bool, typer.Option("--no-parsimony", help="The least log loss, even if a cheaper plan is as good.")]
PositionBias = Annotated[bool, typer.Option("--position-bias", help="Let log pools favour a side: the order is not random.")]
Trials = Annotated[int, typer.Option("--trials", min=0, help="Optuna trials of the study in all; for more than 13 members.")]
Timeout = Annotated[str, typer.Option("--timeout", help="Time for Optuna trials: 2m, 90s.")]
Jobs = Annotated[int, typer.Option("--n-jobs", min=1, help="Optuna trials at a time.")]
PlanFile = Annotated[Path, typer.Argument(help="A plan of `ensemble build`.")]


def _request(
    target: str,
    budget: str,
    rows: int,
    margin: float | None,
    lengths: Path | None,
    *,
    limits: SearchLimits,
    whole_file: bool,
    position_bias: bool,
    parsimony: bool = True,
) -> BuildRequest:
    from ensemble.budget.duration import parse_budget
    from ensemble.search.decide import BuildRequest
    from zoo.targets import load_target

    return BuildRequest(
        load_target(target),
        parse_budget(budget),
        rows,
        margin,
        lengths,
        parsimony=parsimony,
        coverage=not whole_file,
        position_bias=position_bias,
        limits=limits,
    )


def _limits(trials: int, timeout: str, n_jobs: int) -> SearchLimits:
    from ensemble.budget.duration import parse_budget
    from ensemble.search.with_optuna import SearchLimits
    from zoo.settings import home

    return SearchLimits(trials, parse_budget(timeout), n_jobs, storage=home() / "optuna.db")


def _for_target(context: typer.Context, request: BuildRequest) -> tuple[BuildRequest, list[Table]]:
    """The request with its tables; where the user named no target, for the only one that the tables have a cost on."""
    from ensemble.members.gather import gather
    from zoo.settings import home
    from zoo.targets import load_target

    tables = gather(home() / "store")
    costs = {table.card.target for table in tables}
    chosen = context.get_parameter_source("target")
    if chosen is None or chosen.name != "DEFAULT" or len(costs) != 1 or request.target.name in costs:
        return request, tables
    only = costs.pop()
    say(f"no --target given and every member has its cost on {only}: planning for {only}, not for {request.target.name}")
    return replace(request, target=load_target(only)), tables


def _members(tables: list[Table], target: str, battles: Path | None, include: list[str] | None, alias: str | None) -> Members:
    from ensemble.members.gather import align, with_alias
    from zoo.tracking.promote import members_with_alias

    if alias is not None:
        tables = with_alias(tables, members_with_alias(alias), alias)
    members = align(tables, target=target, battles=battles, include=include or ())
    say(f"{len(members.names)} members on {len(members.y):,} rows that all scored out of fold; {members.lost_rows:,} rows lost")
    for name, reason in members.left_out.items():
        say(f"left out: {name}: {reason}")
    return members


def build(
    context: typer.Context,
    budget: Budget = "9h",
    target: TargetName = "t4x2",
    rows: Rows = COMPETITION_ROWS,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the plan goes.")] = Path("plan.json"),
    margin: Margin = None,
    lengths: Lengths = None,
    battles: BattlesFile = None,
    include: Include = None,
    alias: Alias = None,
    whole_file: WholeFile = False,
    no_parsimony: NoParsimony = False,
    position_bias: PositionBias = False,
    trials: Trials = 60,
    timeout: Timeout = "2m",
    n_jobs: Jobs = 1,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Find the best blend of the scored members that fits the budget, as a plan.

    Example: ensemble build --budget 9h --target t4x2

    Example: ensemble build --budget 5m --target cpu --rows 200 --data battles.csv -o plan.json
    """
    from ensemble.plan import save_plan
    from ensemble.report.views import plan_page
    from ensemble.search.build import build_plan, plan_numbers
    from zoo.tracking.sync import log_build

    style = style_of(format_, as_json)
    request = _request(
        target,
        budget,
        rows,
        margin,
        lengths,
        whole_file=whole_file,
        parsimony=not no_parsimony,
        position_bias=position_bias,
        limits=_limits(trials, timeout, n_jobs),
    )
    request, tables = _for_target(context, request)
    members = _members(tables, request.target.name, battles, include, alias)
    plan = build_plan(members, request, say=say)
    save_plan(plan, output)
    used = {member.name for member in plan.members}
    artifacts = {name: f for name, f in zip(members.names, members.fingerprints, strict=True) if name in used}
    # The plan without its paths, never the file, whatever its name.
    log_build(plan.model_dump(mode="json"), plan_numbers(plan), artifacts)
    show_page(plan_page(plan), style, data=plan.model_dump(mode="json"))
    say(f"wrote {output}")


def frontier(
    context: typer.Context,
    target: TargetName = "t4x2",
    rows: Rows = COMPETITION_ROWS,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for frontier.json and frontier.png.")] = Path(
        "frontier"
    ),
    margin: Margin = None,
    lengths: Lengths = None,
    battles: BattlesFile = None,
    include: Include = None,
    alias: Alias = None,
    whole_file: WholeFile = False,
    position_bias: PositionBias = False,
    trials: Trials = 60,
    timeout: Timeout = "2m",
    n_jobs: Jobs = 1,
    points: Annotated[
        int, typer.Option("--points", min=2, help="How many budgets, from the cheapest plan to all members.")
    ] = 8,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Log loss against budget for the whole range at once.

    A table, a figure and JSON, with each plan on it.

    Example: ensemble frontier --target t4x2 --points 12
    """
    from ensemble.report.frontier import save_frontier
    from ensemble.report.views import frontier_table
    from ensemble.search.frontier import compute_frontier

    style = style_of(format_, as_json)
    request = _request(
        target,
        "9h",
        rows,
        margin,
        lengths,
        whole_file=whole_file,
        position_bias=position_bias,
        limits=_limits(trials, timeout, n_jobs),
    )
    request, tables = _for_target(context, request)
    members = _members(tables, request.target.name, battles, include, alias)
    found = compute_frontier(members, request, points=points, say=say)
    save_frontier(found, output)
    show_page([frontier_table(found)], style, data=[point.model_dump(mode="json") for point in found])
    say(f"wrote {output / 'frontier.json'} and {output / 'frontier.png'}")


def show(
    plan: PlanFile = Path("plan.json"),
    format_: Output = Format.table,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write it as one page that needs nothing else.")] = None,
) -> None:
    """A plan for people: its members, schedule, log loss, and what others would reach.

    `--json` and `--html` give all of it.

    Example: ensemble show plan.json

    Example: ensemble show plan.json --html plan.html
    """
    from ensemble.plan import load_plan
    from ensemble.report.views import plan_page

    style, loaded = style_of(format_, as_json), load_plan(plan)
    if html is not None:
        from ensemble.report.page import plan_page as html_page
        from zoo.settings import home
        from zoo.store import write_atomic

        write_atomic(html, html_page(loaded, home() / "store"))
        say(f"wrote {html}")
        return
    show_page(plan_page(loaded), style, data=loaded.model_dump(mode="json"))
