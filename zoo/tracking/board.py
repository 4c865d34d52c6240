"""The leaderboard of this home, with its champions."""

from __future__ import annotations

from pathlib import Path

from zoo.report.leaderboard import Row, SortBy, leaderboard
from zoo.settings import store_folder
from zoo.tracking.models import CHAMPION, kept_aliases


def board(
    store: Path | None = None,
    *,
    data: str | None = None,
    target: str | None = None,
    sort: SortBy = SortBy.loss,
    top: int | None = None,
    superseded: bool = False,
) -> list[Row]:
    """The rows that `zoo leaderboard` prints; `Row.model_dump()` makes a record of each.

    `store`: another one than the home's. `target`: a machine's name; the others as `zoo.report.leaderboard.leaderboard` takes
    them. Champions are read from the home, not asked of MLflow. ZooError where there is no such data or target.
    """
    from zoo.targets import load_target

    champions = {entry: given[CHAMPION]["checkpoint"] for entry, given in kept_aliases().items() if CHAMPION in given}
    machine = load_target(target) if target else None
    return leaderboard(
        store or store_folder(),
        data=data,
        target=machine,
        sort=sort,
        top=top,
        superseded=superseded,
        champions=champions,
    )
