"""From the options of `build` and `frontier` to members and a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

from ensemble.cli.options import Asked
from zoo.cli.base import say
from zoo.errors import ZooError, amount

if TYPE_CHECKING:
    from ensemble.members.prices import PriceList
    from ensemble.members.table import Members
    from ensemble.plan import PoolKind, RobustBy
    from ensemble.search.decide import BuildRequest
    from ensemble.search.robust import AskedGroups
    from zoo.pipeline.members import Table

FILES_TARGET = "cpu"  # of a plan of files alone that no budget binds: nothing runs there


def pose(
    context: typer.Context, asked: Asked, budget: str = "9h", *, parsimony: bool = False, output: Path
) -> tuple[Members, BuildRequest]:
    """The members and the request that the options ask for.

    `output`: what is made of them; the study of tables from files lies beside it.
    """
    from ensemble.budget.duration import parse_budget
    from ensemble.plan import STUDIES
    from ensemble.search.decide import BuildRequest, SearchLimits
    from zoo.settings import home
    from zoo.targets import load_target

    storage = output.with_name(f"{output.stem}.{STUDIES}") if asked.scores else home() / STUDIES
    limits = SearchLimits(asked.trials, parse_budget(asked.timeout), asked.n_jobs, storage=storage)
    free = bool(asked.scores) and _is_default(context, "budget")
    request = BuildRequest(
        load_target(FILES_TARGET if free and _is_default(context, "target") else asked.target),
        parse_budget(budget),
        asked.rows,
        asked.margin,
        asked.lengths,
        parsimony=parsimony,
        coverage=not asked.whole_file and not free,
        position_bias=asked.position_bias,
        pools=_pool_kinds(asked.pools or ()),
        limits=limits,
        robust=_robust(asked),
    )
    if asked.scores:
        tables = _tables_of_files(asked, request.target.name)
    else:
        request, tables = _for_target(context, request)
    members = _members(tables, _prices(asked, request, free=free), asked)
    _tell_of_forecasts(members, request)
    return members, request


def _is_default(context: typer.Context, option: str) -> bool:
    """Whether a command has the option and its user did not give it."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "DEFAULT"


def score_files(asked: Asked) -> list[Path]:
    """The files that --scores names."""
    from ensemble.members.files import named_files

    return list(named_files(asked.scores or ()).values())


def _tables_of_files(asked: Asked, target: str) -> list[Table]:
    from ensemble.members.files import named_files, tables_of_files
    from zoo.pipeline.table_columns import parse_columns

    if asked.alias is not None:
        raise ZooError("--alias: files have no checkpoints; leave it out with --scores")
    if asked.battles is None:
        raise ZooError("--scores: give the winners of these rows too, with --labels FILE (ids and winners are enough)")
    columns = None if asked.columns is None else parse_columns(asked.columns)
    files = named_files(asked.scores or ())
    return tables_of_files(files, asked.battles, target, columns=columns, most_bad=asked.max_bad_rows, say=say)


def _prices(asked: Asked, request: BuildRequest, *, free: bool) -> PriceList:
    """What prices members: the user's own words, measurements in the home, and forecasts."""
    from ensemble.budget.duration import parse_budget
    from ensemble.members.prices import PriceList
    from zoo.cost.measure import samples_folder
    from zoo.settings import store_folder

    seconds = {name: parse_budget(text) for name, text in _pairs("--seconds", "NAME=TIME", asked.seconds).items()}
    like = _pairs("--like", "NAME=ENTRY[@VARIANT]", asked.like)
    stores = (store_folder(), samples_folder())
    return PriceList(request.target, request.rows, seconds, like, stores, free=free)


def _pairs(option: str, form: str, given: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not name or not value:
            raise ZooError(f"{option} {text}: give {form}")
        if name in found:
            raise ZooError(f"{option} {text}: {name} has one already; give it once")
        found[name] = value
    return found


def _pool_kinds(asked: Sequence[str]) -> tuple[PoolKind, ...]:
    """The kinds of pool that `--pool` names; ZooError with those there are."""
    from ensemble.plan import PoolKind

    known: tuple[PoolKind, ...] = get_args(PoolKind)
    for kind in asked:
        if kind not in known:
            raise ZooError(f"--pool {kind}: no such kind of pool; there are {', '.join(known)}")
    return tuple(kind for kind in known if kind in asked)


def _robust(asked: Asked) -> AskedGroups | None:
    from ensemble.search.robust import ROBUST_BY, AskedGroups

    by: RobustBy | None = next((name for name in ROBUST_BY if name == asked.robust_by), None)
    if by is None:
        raise ZooError(f"--robust-by {asked.robust_by}: give {' or '.join(ROBUST_BY)}")
    return None if asked.robust is None else AskedGroups(asked.robust, by)


def _for_target(context: typer.Context, request: BuildRequest) -> tuple[BuildRequest, list[Table]]:
    """The request with its tables; where the user named no target, for the only one that the tables have a cost on."""
    from zoo.pipeline.members import score_tables
    from zoo.settings import home
    from zoo.targets import load_target

    tables = score_tables(home() / "store")
    costs = {table.card.target for table in tables if table.card.cost.priced}
    if not _is_default(context, "target") or len(costs) != 1 or request.target.name in costs:
        return request, tables
    only = costs.pop()
    say(f"no --target given and every member has its cost on {only}: planning for {only}, not for {request.target.name}")
    return replace(request, target=load_target(only)), tables


def _members(tables: list[Table], prices: PriceList, asked: Asked) -> Members:
    from ensemble.members.gather import align, with_alias
    from zoo.tracking.promote import members_with_alias

    if asked.alias is not None:
        tables = with_alias(tables, members_with_alias(asked.alias), asked.alias)
    members = align(
        tables,
        prices=prices,
        battles=asked.battles,
        include=asked.include or (),
        exclude=asked.exclude or (),
        prefer=asked.prefer or (),
        say=say,
        most_bad=asked.max_bad_rows,
        column=asked.robust,
    )
    _tell(members)
    return members


def _tell(members: Members) -> None:
    """Say what was taken and what was not, and what is odd about a member that was."""
    from zoo.scores.metrics import log_loss_rows

    share = "1/3" if members.ties else "1/2"
    lost = ", ".join(f"{name} lacks {rows:,}" for name, rows in members.lost_by.items())
    say(
        f"{amount(len(members.names), 'member')} on {amount(len(members.y), 'row')} that all scored out of fold; "
        f"{amount(members.lost_rows, 'row')} lost" + (f" ({lost})" if lost else "")
    )
    if not members.ties:
        say("no battle of this kind is a tie: p_tie is taken out of every table, and the plan gives none")
    for name, p in zip(members.names, members.p, strict=True):
        loss, uniform = float(log_loss_rows(p, members.y).mean()), members.uniform_loss
        if loss > uniform:
            say(f"{name} is worse than {share} for each label: log loss {loss:.4f} on these rows, where that has {uniform:.4f}")
    for name, reason in members.left_out.items():
        say(f"left out: {name}: {reason}")


def _tell_of_forecasts(members: Members, request: BuildRequest) -> None:
    """Say which members' costs are forecasts, and what they would take of the whole target for the whole file."""
    from ensemble.budget.foretold import forecast_lines
    from zoo.cost.basis import copies_of
    from zoo.cost.fit import row_seconds

    found = []
    for name, cost, tokens in zip(members.names, members.costs, members.tokens, strict=True):
        work = request.rows * float(row_seconds(cost, tokens).mean()) / copies_of(cost, request.target)
        found.append((name, cost, cost.load_seconds + work))
    for line in forecast_lines(found, f"for {amount(request.rows, 'row')}"):
        say(line)
