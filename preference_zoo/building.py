"""Plans are built here: of the store's members or of tables alone, at one budget or at many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict, Unpack

from preference_zoo.handed import Handed, Table, check_least
from preference_zoo.plans import Plan
from preference_zoo.shown import Shown, local_page
from zoo.errors import ZooError, amount

if TYPE_CHECKING:
    from ensemble.search.pose import BuildOptions


class Frontier(Shown):
    """Log loss against budget: each row what `build` reports at that budget; a DataFrame."""


class SearchOptions(TypedDict, total=False):
    """What `build` and `frontier` can be asked beside machine and tables.

    `rows`: of the file to be predicted. `margin`: what predicted seconds are multiplied by. `lengths`: battles as long as those
    to be predicted. `columns`: names in the tables of `scores`, by `id`, `a`, `b`, `tie`. `seconds`, `like`: prices by member,
    in seconds (or 40m) of the whole file, or as an entry's. `include`, `exclude`, `prefer`, `alias`: which members. `pools`:
    only these kinds. `whole_file`: every member sees every row. `trials`, `timeout_seconds`, `n_jobs`: of Optuna's study beside
    the exact search. `robust`, `robust_by`: choose by groups left out in turn. `max_bad_rows`: share of the rows that may be
    unusable.
    """

    rows: int
    margin: float | None
    lengths: Table | None
    columns: Mapping[str, str] | None
    seconds: Mapping[str, float | str]
    like: Mapping[str, str]
    include: Sequence[str]
    exclude: Sequence[str]
    prefer: Sequence[str]
    alias: str | None
    pools: Sequence[str]
    whole_file: bool
    position_bias: bool
    trials: int
    timeout_seconds: float
    n_jobs: int
    robust: str | None
    robust_by: str
    max_bad_rows: float


def build(
    *,
    budget: str | None = None,
    target: str | None = None,
    battles: Table | None = None,
    scores: Mapping[str, Table] | None = None,
    labels: Table | None = None,
    output: Path | str = "plan.json",
    parsimony: bool = False,
    calibrate_on: Table | None = None,
    calibrate_scores: Mapping[str, Table] | None = None,
    calibrate_run: bool = False,
    **options: Unpack[SearchOptions],
) -> Plan:
    """The best blend of scored members that fits the budget, also written to `output`.

    As `ensemble build` finds it, of the store's members, on the data of `battles` where they are of several; or of tables
    alone: `scores` by name, out of fold, with the winners of their rows as `labels` (ids and winners are enough), and no cost
    where no `budget` is given. `budget`: of one whole prediction, 9h (the default), 1h30m, 90s; `target`: the machine that
    predicts. `calibrate_on`: labelled battles of the kind to be predicted. Other `options`: see `SearchOptions`.

    >>> plan = pz.build(scores={"llama": llama_oof, "yi": yi_oof}, labels=votes)
    >>> plan = pz.build(budget="9h", target="t4x2", like={"theirs": "llama-3-8b"})
    """
    from ensemble.report.planned import calibration_asked, make_plan

    with Handed() as handed:
        asked = _asked(handed, target=target, battles=battles, scores=scores, labels=labels, **options)
        calibration = calibration_asked(
            handed.optional(calibrate_on, "calibrate_on"),
            handed.paths(calibrate_scores, "calibrate_scores"),
            run=calibrate_run,
            max_bad_rows=asked.max_bad_rows,
        )
        within = None if budget is None else str(budget)
        make_plan(asked, within, Path(output), parsimony=parsimony, calibration=calibration, say=handed.say)
    return Plan(output)


def frontier(
    *,
    target: str | None = None,
    battles: Table | None = None,
    scores: Mapping[str, Table] | None = None,
    labels: Table | None = None,
    output: Path | str = "frontier",
    points: int = 8,
    **options: Unpack[SearchOptions],
) -> Frontier:
    """Log loss against budget for the whole range at once; its files go to `output`.

    As `ensemble frontier` has it. `points`: how many budgets, from the cheapest plan to all members. The others as `build`
    takes them.

    >>> pz.frontier(target="t4x2")[["budget_seconds", "log_loss"]]
    """
    from ensemble.report.frontier import FILES
    from ensemble.report.planned import make_frontier
    from ensemble.report.views import frontier_table
    from zoo.report.html import image

    folder = Path(output)
    check_least(2, points=points)
    with Handed() as handed:
        asked = _asked(handed, target=target, battles=battles, scores=scores, labels=labels, **options)
        found = make_frontier(asked, folder, points=points, say=handed.say)
    table = frontier_table(found)
    frame = Frontier([point.model_dump() for point in found])
    best = min(point.oof_log_loss for point in found)
    picture = image((folder / FILES[1]).read_bytes(), "log loss against budget")
    frame.shown_as(f"{amount(len(found), 'budget')}, the lowest log loss {best:.4f}", local_page([table]), picture)
    return frame


def _asked(
    handed: Handed,
    *,
    battles: Table | None,
    labels: Table | None,
    scores: Mapping[str, Table] | None,
    **options: Any,
) -> BuildOptions:
    """What is asked for, frames as files; TypeError for an option that there is not, as any function has it."""
    from ensemble.members.files import named_files
    from ensemble.search.pose import BuildOptions
    from zoo.report.duration import parse_budget

    if battles is not None and labels is not None:
        raise ZooError("battles and labels are two names of one thing, the labelled rows; give one of them")
    check_least(1, rows=options.get("rows"), n_jobs=options.get("n_jobs"))
    check_least(0, trials=options.get("trials"))
    name = "labels" if battles is None else "battles"
    tables = handed.paths(scores)
    lengths, seconds = options.pop("lengths", None), options.pop("seconds", None) or {}
    return BuildOptions(
        battles=handed.optional(labels if battles is None else battles, name),
        scores=named_files([f"{member}={path}" for member, path in tables.items()]),
        lengths=handed.optional(lengths, "lengths"),
        seconds={member: parse_budget(str(value)) for member, value in seconds.items()},
        **options,
    )
