"""`ensemble build`, `frontier` and `show`: plans within a time budget."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.app import MOST_BAD, MaxBadRows
from zoo.cli.base import AsJson, Output, complete_target, say, style_of
from zoo.cost.price import COMPETITION_ROWS
from zoo.errors import ZooError
from zoo.report.text import Format
from zoo.report.text import show as show_page

if TYPE_CHECKING:
    from ensemble.members.table import Members
    from ensemble.search.decide import BuildRequest
    from zoo.pipeline.members import Table

Budget = Annotated[str, typer.Option("--budget", help="Time of one whole prediction: 9h, 1h30m, 5m, 90s.")]
TargetName = Annotated[
    str, typer.Option("--target", help="Machine that predicts, one of `zoo target list`.", autocompletion=complete_target)
]
Rows = Annotated[int, typer.Option("--rows", min=1, help="Rows of the file to be predicted.")]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Predicted seconds are multiplied by it. Default: the target's.")
]
Lengths = Annotated[Path | None, typer.Option("--lengths", help="Battles whose lengths are those to be predicted.")]
BattlesFile = Annotated[
    Path | None,
    typer.Option("--data", "--battles", help="The labelled battles that the members were scored on."),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", help="Keep this member though it looks in-sample or costs many rows. Repeatable."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Leave out this member, or one table by its fingerprint. Repeatable.")
]
Prefer = Annotated[
    list[str] | None,
    typer.Option("--prefer", help="Fingerprint of a table to take for its member, whatever others have. Repeatable."),
]
Alias = Annotated[
    str | None,
    typer.Option("--alias", help="Only members whose checkpoint has this alias: champion, candidate; see `zoo promote`."),
]
WholeFile = Annotated[bool, typer.Option("--whole-file", help="Every member sees every row; no gates.")]
Parsimony = Annotated[
    bool,
    typer.Option(
        "--parsimony/--no-parsimony", help="Of the plans within one standard error of the best take the cheapest, not the best."
    ),
]
PositionBias = Annotated[bool, typer.Option("--position-bias", help="Let log pools favour a side: the order is not random.")]
Trials = Annotated[int, typer.Option("--trials", min=0, help="Optuna's trials beside the exact search, in all; 0: none.")]
Timeout = Annotated[str, typer.Option("--timeout", help="Most time for these trials: 2m, 90s. One that has begun is finished.")]
Jobs = Annotated[int, typer.Option("--n-jobs", min=1, help="Trials at a time.")]
FrontierFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder for frontier.json and frontier.png.")]
Points = Annotated[int, typer.Option("--points", min=2, help="How many budgets, from the cheapest plan to all members.")]
PlanFile = Annotated[Path, typer.Argument(help="A plan of `ensemble build`.")]


@dataclass(frozen=True)
class Asked:
    """What `build` and `frontier` both take: machine, file, members and limits of the search.

    Its fields are options of both commands, see `takes_asked`.
    """

    target: TargetName = "t4x2"
    rows: Rows = COMPETITION_ROWS
    margin: Margin = None
    lengths: Lengths = None
    battles: BattlesFile = None
    include: Include = None
    max_bad_rows: MaxBadRows = MOST_BAD
    exclude: Exclude = None
    prefer: Prefer = None
    alias: Alias = None
    whole_file: WholeFile = False
    position_bias: PositionBias = False
    trials: Trials = 50
    timeout: Timeout = "2m"
    n_jobs: Jobs = 1


def takes_asked(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `asked` is given as options, one for each field of `Asked`.

    They stand in help where it stands in the signature. Typer knows no options that come in one object.
    """
    spread = inspect.signature(Asked, eval_str=True).parameters

    def command(**given: Any) -> None:
        function(asked=Asked(**{name: given.pop(name) for name in spread}), **given)

    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(function, eval_str=True).parameters.values():
        parameters += spread.values() if own.annotation is Asked else [own]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _posed(
    context: typer.Context, asked: Asked, budget: str = "9h", *, parsimony: bool = False
) -> tuple[Members, BuildRequest]:
    """The members and the request that the options ask for."""
    from ensemble.budget.duration import parse_budget
    from ensemble.plan import STUDIES
    from ensemble.search.decide import BuildRequest, SearchLimits
    from zoo.settings import home
    from zoo.targets import load_target

    limits = SearchLimits(asked.trials, parse_budget(asked.timeout), asked.n_jobs, storage=home() / STUDIES)
    request = BuildRequest(
        load_target(asked.target),
        parse_budget(budget),
        asked.rows,
        asked.margin,
        asked.lengths,
        parsimony=parsimony,
        coverage=not asked.whole_file,
        position_bias=asked.position_bias,
        limits=limits,
    )
    request, tables = _for_target(context, request)
    return _members(tables, request.target.name, asked), request


def _for_target(context: typer.Context, request: BuildRequest) -> tuple[BuildRequest, list[Table]]:
    """The request with its tables; where the user named no target, for the only one that the tables have a cost on."""
    from zoo.pipeline.members import score_tables
    from zoo.settings import home
    from zoo.targets import load_target

    tables = score_tables(home() / "store")
    costs = {table.card.target for table in tables}
    chosen = context.get_parameter_source("target")
    if chosen is None or chosen.name != "DEFAULT" or len(costs) != 1 or request.target.name in costs:
        return request, tables
    only = costs.pop()
    say(f"no --target given and every member has its cost on {only}: planning for {only}, not for {request.target.name}")
    return replace(request, target=load_target(only)), tables


def _members(tables: list[Table], target: str, asked: Asked) -> Members:
    from ensemble.members.gather import align, with_alias
    from zoo.tracking.promote import members_with_alias

    if asked.alias is not None:
        tables = with_alias(tables, members_with_alias(asked.alias), asked.alias)
    members = align(
        tables,
        target=target,
        battles=asked.battles,
        include=asked.include or (),
        exclude=asked.exclude or (),
        prefer=asked.prefer or (),
        say=say,
        most_bad=asked.max_bad_rows,
    )
    _tell(members)
    return members


def _tell(members: Members) -> None:
    """Say what was taken and what was not, and what is odd about a member that was."""
    from zoo.scores.metrics import log_loss_rows

    share = "1/3" if members.ties else "1/2"
    lost = ", ".join(f"{name} lacks {rows:,}" for name, rows in members.lost_by.items())
    say(
        f"{len(members.names)} members on {len(members.y):,} rows that all scored out of fold; {members.lost_rows:,} rows lost"
        + (f" ({lost})" if lost else "")
    )
    if not members.ties:
        say("no battle of this kind is a tie: p_tie is taken out of every table, and the plan gives none")
    for name, p in zip(members.names, members.p, strict=True):
        loss, uniform = float(log_loss_rows(p, members.y).mean()), members.uniform_loss
        if loss > uniform:
            say(f"{name} is worse than {share} for each label: log loss {loss:.4f} on these rows, where that has {uniform:.4f}")
    for name, reason in members.left_out.items():
        say(f"left out: {name}: {reason}")


@takes_asked
def build(
    *,
    context: typer.Context,
    budget: Budget = "9h",
    asked: Asked,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the plan goes.")] = Path("plan.json"),
    parsimony: Parsimony = False,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Find the best blend of the scored members that fits the budget, as a plan.

    Example: ensemble build --budget 9h --target t4x2

    Example: ensemble build --budget 5m --target cpu --rows 200 --data battles.csv -o plan.json

    Example: ensemble build --exclude lexical@ab --prefer 0123456789abcdef
    """
    from ensemble.plan import save_plan
    from ensemble.report.views import plan_page
    from ensemble.search.build import build_plan, plan_numbers
    from zoo.store import check_output
    from zoo.tracking.sync import log_build

    style = style_of(format_, as_json)
    check_output(output, asked.battles, asked.lengths)
    members, request = _posed(context, asked, budget, parsimony=parsimony)
    plan = build_plan(members, request, say=say)
    save_plan(plan, output)
    used = {member.name for member in plan.members}
    artifacts = {name: f for name, f in zip(members.names, members.fingerprints, strict=True) if name in used}
    # The plan without its paths, never the file, whatever its name.
    log_build(plan.model_dump(mode="json"), plan_numbers(plan), artifacts)
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
        check_output(output / file, asked.battles, asked.lengths)
    members, request = _posed(context, asked)
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
    """A plan for people: its members, schedule, log loss, and what others would reach.

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
