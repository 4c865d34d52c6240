"""From the options of `build` and `frontier` to members and a request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from ensemble.cli.options import Asked
from zoo.cli.base import say

if TYPE_CHECKING:
    from ensemble.members.table import Members
    from ensemble.search.decide import BuildRequest
    from zoo.pipeline.members import Table


def pose(context: typer.Context, asked: Asked, budget: str = "9h", *, parsimony: bool = False) -> tuple[Members, BuildRequest]:
    """The members and the request that the options ask for."""
    from ensemble.budget.duration import parse_budget
    from ensemble.search.decide import BuildRequest
    from ensemble.search.with_optuna import SearchLimits
    from zoo.settings import home
    from zoo.targets import load_target

    limits = SearchLimits(asked.trials, parse_budget(asked.timeout), asked.n_jobs, storage=home() / "optuna.db")
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
