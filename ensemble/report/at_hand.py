"""The rows that a plan was fitted on, where members' tables and battles are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.plan import Plan
from ensemble.pools.blend import apply_blend
from ensemble.pools.patterns import blend_for
from zoo.data.battles import Battles, dataset_digest, read_battles, text_lengths
from zoo.errors import ZooError
from zoo.pipeline.members import Table, score_tables, standing
from zoo.scores.tables import probabilities, without_ties


@dataclass(frozen=True)
class FittedRows:
    """A plan's fitting rows.

    `frame`: the labelled battles, in the order of all that follows. `blend` (rows, 3): of all members on all rows;
    `members` (rows, 3) by name; `tables` those that they come from. `battles`: the whole file.
    """

    battles: Battles
    frame: pd.DataFrame
    blend: np.ndarray
    members: dict[str, np.ndarray]
    tables: dict[str, Table]

    @property
    def labels(self) -> np.ndarray:
        """Labels 0, 1, 2: (rows,)."""
        found: np.ndarray = self.frame["label"].to_numpy(dtype=np.int64)
        return found


def blend_at_hand(plan: Plan, store: Path | None) -> tuple[tuple[np.ndarray, np.ndarray] | None, str]:
    """The plan's blend of all members on the rows it was fitted on, with a note.

    (probabilities (rows, 3), labels (rows,)). None, and why, where the store lacks a member's table or the battles are not
    where they were.
    """
    try:
        rows = fitted_rows(plan, store)
    except ZooError as error:
        return None, str(error)
    return (rows.blend, rows.labels), f"{rows_text(rows)} Bars are one standard error."


def rows_text(rows: FittedRows) -> str:
    """What a reader has to know of the rows."""
    return (
        f"All members on all {len(rows.frame):,} rows. The members had not seen these rows; the blend's few weights were "
        "fitted on them."
    )


def fitted_rows(plan: Plan, store: Path | None) -> FittedRows:
    """The rows that a plan was fitted on, with what it and its members say of them.

    ZooError where the store lacks a member's table, or the battles are not where they were.
    """
    if store is None or not store.exists():
        raise ZooError("the members' score tables are not on this machine")
    tables = _tables_of(plan, store)
    missing = [member.name for member in plan.members if member.name not in tables]
    if missing:
        raise ZooError(f"the store has no score table of {', '.join(missing)} from the plan's checkpoint and data")
    battles = _battles_of(list(tables.values()), plan.dataset_digest)
    if battles is None:
        raise ZooError("the labelled battles are not where they were scored from")
    known = battles.frame[battles.frame["label"] >= 0].set_index("id", drop=False)
    usable = {name: table.usable.set_index("id") for name, table in tables.items()}
    ids = sorted(set(known.index).intersection(*(frame.index for frame in usable.values())))
    blend = blend_for(plan.pools, frozenset(usable), planned=False)
    if not ids or blend is None:
        raise ZooError("the members' tables share no labelled row")
    if len(ids) != plan.fitted_rows:
        raise ZooError(f"the members' tables share {len(ids):,} rows now, and the plan was fitted on {plan.fitted_rows:,}")
    frame = known.loc[ids].reset_index(drop=True)
    p = {name: probabilities(table.loc[ids]) for name, table in usable.items()}
    if not plan.ties:
        p = {name: without_ties(table) for name, table in p.items()}
    lengths = text_lengths(frame) if battles.has_texts else np.full((len(frame), 3), np.nan)
    return FittedRows(battles, frame, apply_blend(blend, p, lengths), p, tables)


def _tables_of(plan: Plan, store: Path) -> dict[str, Table]:
    """The plan's members' tables by name, as a build takes them, of the plan's data and checkpoints."""
    wanted = {member.name: member.checkpoint for member in plan.members}
    of_data = [table for table in score_tables(store) if table.card.dataset_digest == plan.dataset_digest]
    at_home = [table for table in of_data if table.card.target == plan.target.name and not table.card.emulates]
    priced = {table.name for table in at_home}
    on_data = [*at_home, *(table for table in of_data if table.name not in priced)]  # those have the cost of a forecast
    of_plan = {(t.name, t.recipe) for t in on_data if wanted.get(t.name) == t.card.checkpoint}
    found = standing([table for table in on_data if (table.name, table.recipe) in of_plan]).members
    return {
        member.table.name: member.table for member in found if wanted.get(member.table.name) == member.table.card.checkpoint
    }


def _battles_of(tables: list[Table], digest: str) -> Battles | None:
    """The battles that have this digest, where a table's still lie."""
    for path in {table.battles_path for table in tables if table.battles_path}:
        if path.exists() and dataset_digest(battles := read_battles(path, need_texts=False)) == digest:
            return battles
    return None
