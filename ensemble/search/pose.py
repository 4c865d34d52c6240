"""From what a build is asked to members and a request, for commands and Python alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from zoo.contracts import Say
from zoo.cost.price import COMPETITION_ROWS
from zoo.errors import ZooError, amount

if TYPE_CHECKING:
    from ensemble.members.prices import PriceList
    from ensemble.members.table import Members
    from ensemble.plan import PoolKind, RobustBy
    from ensemble.search.decide import BuildRequest
    from ensemble.search.robust import AskedGroups
    from zoo.pipeline.members import Table

BUDGET, TARGET = "9h", "t4x2"  # where none is given
FILES_TARGET = "cpu"  # of a plan of files alone that no budget binds: nothing runs there
MOST_BAD = 0.1  # as zoo.data.usable has it; help imports no pandas


@dataclass(frozen=True)
class BuildOptions:
    """What a build or a frontier is asked for: machine, file, members and limits of the search.

    `target` None: TARGET, or the only one that members have a cost on. `battles`: the labelled ones that members were scored
    on; `scores`: tables by member in the place of the store's, with their columns where these have no usual names; `seconds`
    and `like`: prices by member. The others are the options of `ensemble build`.
    """

    target: str | None = None
    rows: int = COMPETITION_ROWS
    margin: float | None = None
    lengths: Path | None = None
    battles: Path | None = None
    scores: Mapping[str, Path] = field(default_factory=dict)
    columns: Mapping[str, str] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    like: Mapping[str, str] = field(default_factory=dict)
    include: Sequence[str] = ()
    max_bad_rows: float = MOST_BAD
    exclude: Sequence[str] = ()
    prefer: Sequence[str] = ()
    alias: str | None = None
    pools: Sequence[str] = ()
    whole_file: bool = False
    position_bias: bool = False
    trials: int = 50
    timeout_seconds: float = 120.0
    n_jobs: int = 1
    robust: str | None = None
    robust_by: str = "worst"

    @property
    def files(self) -> list[Path]:
        """The files that are read: no output may replace one."""
        return [path for path in (self.battles, self.lengths, *self.scores.values()) if path is not None]


def pose(
    asked: BuildOptions, budget: str | None, *, parsimony: bool = False, output: Path, say: Say
) -> tuple[Members, BuildRequest]:
    """The members and the request that the options ask for.

    `budget` None: BUDGET, and for tables alone that nobody prices none at all. `output`: what is made of them; the study of
    tables from files lies beside it.
    """
    from ensemble.search.decide import BuildRequest, SearchLimits
    from zoo.experiments.study import STUDIES
    from zoo.report.duration import parse_budget
    from zoo.settings import home
    from zoo.targets import load_target

    storage = output.with_name(f"{output.stem}.{STUDIES}") if asked.scores else home() / STUDIES
    limits = SearchLimits(asked.trials, asked.timeout_seconds, asked.n_jobs, storage=storage)
    free = bool(asked.scores) and budget is None
    request = BuildRequest(
        load_target(asked.target or (FILES_TARGET if free else TARGET)),
        parse_budget(budget or BUDGET),
        asked.rows,
        asked.margin,
        asked.lengths,
        parsimony=parsimony,
        coverage=not asked.whole_file and not free,
        position_bias=asked.position_bias,
        pools=_pool_kinds(asked.pools),
        limits=limits,
        robust=_robust(asked),
    )
    if asked.scores:
        tables = _tables_of_files(asked, request.target.name, say)
    else:
        request, tables = _for_target(asked, request, say)
    members = _members(tables, _prices(asked, request, free=free), asked, say)
    _tell_of_forecasts(members, request, say)
    return members, request


def _tables_of_files(asked: BuildOptions, target: str, say: Say) -> list[Table]:
    from ensemble.members.files import tables_of_files

    if asked.alias is not None:
        raise ZooError("--alias: files have no checkpoints; leave it out with --scores")
    if asked.battles is None:
        raise ZooError("--scores: give the winners of these rows too, with --labels FILE (ids and winners are enough)")
    return tables_of_files(asked.scores, asked.battles, target, columns=asked.columns, most_bad=asked.max_bad_rows, say=say)


def _prices(asked: BuildOptions, request: BuildRequest, *, free: bool) -> PriceList:
    """What prices members: the user's own words, measurements in the home, and forecasts."""
    from ensemble.members.prices import PriceList
    from zoo.cost.measure import samples_folder
    from zoo.settings import store_folder

    stores = (store_folder(), samples_folder())
    return PriceList(request.target, request.rows, dict(asked.seconds), dict(asked.like), stores, free=free)


def _pool_kinds(asked: Sequence[str]) -> tuple[PoolKind, ...]:
    """The kinds of pool that `--pool` names; ZooError with those there are."""
    from ensemble.plan import PoolKind

    known: tuple[PoolKind, ...] = get_args(PoolKind)
    for kind in asked:
        if kind not in known:
            raise ZooError(f"--pool {kind}: no such kind of pool; there are {', '.join(known)}")
    return tuple(kind for kind in known if kind in asked)


def _robust(asked: BuildOptions) -> AskedGroups | None:
    from ensemble.search.robust import ROBUST_BY, AskedGroups

    by: RobustBy | None = next((name for name in ROBUST_BY if name == asked.robust_by), None)
    if by is None:
        raise ZooError(f"--robust-by {asked.robust_by}: give {' or '.join(ROBUST_BY)}")
    return None if asked.robust is None else AskedGroups(asked.robust, by)


def _for_target(asked: BuildOptions, request: BuildRequest, say: Say) -> tuple[BuildRequest, list[Table]]:
    """The request with its tables; where the user named no target, for the only one that the tables have a cost on."""
    from zoo.pipeline.members import score_tables
    from zoo.settings import home
    from zoo.targets import load_target

    tables = score_tables(home() / "store")
    costs = {table.card.target for table in tables if table.card.cost.priced}
    if asked.target is not None or len(costs) != 1 or request.target.name in costs:
        return request, tables
    only = costs.pop()
    say(f"no --target given and every member has its cost on {only}: planning for {only}, not for {request.target.name}")
    return replace(request, target=load_target(only)), tables


def _members(tables: list[Table], prices: PriceList, asked: BuildOptions, say: Say) -> Members:
    from ensemble.members.gather import align, with_alias
    from zoo.tracking.promote import members_with_alias

    if asked.alias is not None:
        tables = with_alias(tables, members_with_alias(asked.alias), asked.alias)
    members = align(
        tables,
        prices=prices,
        battles=asked.battles,
        include=asked.include,
        exclude=asked.exclude,
        prefer=asked.prefer,
        say=say,
        most_bad=asked.max_bad_rows,
        column=asked.robust,
    )
    _tell(members, say)
    return members


def _tell(members: Members, say: Say) -> None:
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


def _tell_of_forecasts(members: Members, request: BuildRequest, say: Say) -> None:
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
