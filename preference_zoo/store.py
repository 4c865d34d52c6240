"""The store: battles, tables made elsewhere, and the leaderboard of all that is scored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preference_zoo.handed import Handed, Table, check_least
from preference_zoo.shown import Shown
from zoo.errors import ZooError, amount


@dataclass(frozen=True)
class Store:
    """An open store: the folder that holds all that machines write."""

    home: Path

    def __repr__(self) -> str:
        from zoo.pipeline.members import score_tables, standing

        folder = self.home / "store"
        members = len(standing(score_tables(folder)).members) if folder.exists() else 0
        return f"Store({os.path.relpath(self.home)!r}: {amount(members, 'scored member')})"


class Leaderboard(Shown):
    """Every scored member: log loss with its standard error, cost and memory; a DataFrame."""


def open_store(home: Path | str = "mlruns") -> Store:
    """Work with this home from now on, as with ZOO_HOME in a shell.

    It is made when something goes into it. Nobody needs to call this: without, it is what ZOO_HOME names, else `mlruns` in the
    folder of the notebook.

    >>> import preference_zoo as pz
    >>> pz.open_store("mlruns")
    Store('mlruns': 0 scored members)
    """
    found = Path(home).expanduser().absolute()
    if found.exists() and not found.is_dir():
        raise ZooError(f"{home}: is no folder; name the one that holds the store, or a new one")
    os.environ["ZOO_HOME"] = str(found)
    return Store(found)


def battles(data: Table, *, max_bad_rows: float = 0.1) -> pd.DataFrame:
    """Battles as a DataFrame, whatever their format and columns; frames are checked alike.

    Columns: `id` (text), `prompt`, `response_a`, `response_b` (lists of turns, each text or None), the winner where there are
    labels, and every other column of the file. What is read can be handed to every function that takes battles. Rows that
    cannot be used are told and left out; ZooError where they are more than the share `max_bad_rows`, or the whole cannot be
    read.

    >>> votes = pz.battles("train.csv")
    >>> votes.loc[0, ["id", "winner_model_a", "winner_model_b", "winner_tie"]]
    """
    from zoo.data.frame import frame_of
    from zoo.data.usable import usable_battles

    with Handed() as handed:
        path = handed.path(data, "battles")
        read = usable_battles(path, say=handed.say, most_bad=max_bad_rows)
        return frame_of(usable_battles(path, most_bad=max_bad_rows, keep=read.extra_columns))


def import_scores(
    scores: Table,
    name: str,
    *,
    labels: Table,
    target: str = "t4x2",
    load_seconds: float = 0.0,
    seconds_per_row: float | None = None,
    seconds_per_1k_tokens: float | None = None,
    gpus: int | None = None,
    like: str = "",
    columns: Mapping[str, str] | None = None,
    max_bad_rows: float = 0.1,
) -> Shown:
    """Take out-of-fold probabilities made elsewhere as the member `name`, as `zoo import` does.

    `scores`: `id, p_a, p_b, p_tie`, or other usual names, or those in `columns` (by `id`, `a`, `b`, `tie`). `labels`: the ids
    with their winners, and the prompts where there are any. Its price is declared in seconds, or is that of an entry (`like`).
    What it is is shown: log loss beside guessing, what was mended in reading, what looks wrong. ZooError, with row ids, for
    what cannot be right.

    >>> pz.import_scores(oof, "theirs", labels=votes, target="t4x2", load_seconds=90, seconds_per_row=0.6)
    """
    from zoo.experiments.imports import admit
    from zoo.pipeline.import_table import import_scores as take
    from zoo.settings import store_folder

    with Handed() as handed:
        imported = take(
            name,
            handed.path(scores, "scores", keep=True),
            handed.path(labels, "labels", keep=True),
            target=target,
            load_seconds=load_seconds,
            seconds_per_row=seconds_per_row,
            seconds_per_1k_tokens=seconds_per_1k_tokens,
            gpus=gpus,
            like=like,
            columns=columns,
            store=store_folder(),
            say=handed.say,
            most_bad=max_bad_rows,
        )
        page, record = admit(imported, store_folder())
    frame = Shown([record])
    frame.shown_as(f"{name}: log loss {record['log_loss']:.4f} on {amount(record['rows'], 'row')}", page)
    return frame


def leaderboard(
    *,
    data: str | None = None,
    target: str | None = None,
    sort: str = "loss",
    top: int | None = None,
    superseded: bool = False,
) -> Leaderboard:
    """Every scored member of the store; a DataFrame with all columns.

    As `zoo leaderboard` has them. Losses on different rows do not compare: members stand in groups that share theirs, with
    the paired difference to the best of the group. `data`: a data file's name or the first letters of its digest. `target`: a
    machine whose costs are told. `sort`: `loss`, `acc`, `cost`, `name` or `made`. `top`: so many of a group. `superseded`:
    also tables that others of their name replace.

    >>> pz.leaderboard().query("log_loss < 1").sort_values("hours_25k")
    """
    from zoo.report.leaderboard import Row, SortBy
    from zoo.report.leaderboard_page import leaderboard_page
    from zoo.tracking.board import board

    check_least(1, top=top)
    if sort not in list(SortBy):
        raise ZooError(f"sort={sort!r}: there are {', '.join(SortBy)}")
    rows = board(data=data, target=target, sort=SortBy(sort), top=top, superseded=superseded)
    page, records = leaderboard_page(rows)
    frame = Leaderboard(records, columns=list(Row.model_fields))
    losses = [(row.log_loss, row.member) for row in rows if row.log_loss is not None and not row.suspect]
    best = f", the lowest log loss {min(losses)[0]:.4f} of {min(losses)[1]}" if losses else ""
    frame.shown_as(f"{amount(len(rows), 'member')}{best}", page)
    return frame
