"""The rows that a plan was fitted on, where members' tables and battles are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.members.files import labelled_file, tables_of_files
from ensemble.plan import Plan
from ensemble.pools.blend import apply_blend
from ensemble.pools.patterns import blend_for
from zoo.contracts import Say
from zoo.data.battles import Battles, dataset_digest, labels_digest, read_battles, text_lengths
from zoo.errors import ZooError
from zoo.pipeline.members import Member, Table, may_have_learned, score_tables, standing
from zoo.pipeline.suspicion import suspects_of_data
from zoo.pipeline.truth import Truth, truth_at_hand, truth_of
from zoo.scores.tables import probabilities, without_ties


@dataclass(frozen=True)
class FittedRows:
    """A plan's fitting rows.

    `frame`: the labelled battles, in the order of all that follows. `blend` (rows, 3): of all members on all rows;
    `members` (rows, 3) by name; `tables` those that they come from. `battles`: the whole file. `fitted`: on so many of the rows
    the blend was fitted; fewer than all where another candidate lacked some.
    """

    battles: Battles
    frame: pd.DataFrame
    blend: np.ndarray
    members: dict[str, np.ndarray]
    tables: dict[str, Table]
    fitted: int

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
    fitted = "them" if rows.fitted == len(rows.frame) else f"{rows.fitted:,} of them, which every candidate had"
    return (
        f"All members on all {len(rows.frame):,} rows. The members had not seen these rows; the blend's few weights were "
        f"fitted on {fitted}."
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
    return _rows_of(plan, tables, battles)


def fitted_rows_of_files(
    plan: Plan, files: Mapping[str, Path], labels: Path, *, columns: Mapping[str, str] | None = None, say: Say = lambda _: None
) -> tuple[FittedRows, list[Table]]:
    """The same of a plan that was built of files, and the tables of `files` that are not in it.

    `files`: by members' names; of those beside the plan's the ones that look as if they had seen the labels are left out.
    `labels`: the battles, with their texts or without. ZooError where a file is not the one that the plan was fitted on.
    """
    battles = labelled_file(labels)
    if plan.dataset_digest not in (dataset_digest(battles), labels_digest(battles)):
        raise ZooError(f"{labels}: not the rows that the plan was fitted on (data {plan.dataset_digest[:8]}); give those")
    tables = {table.name: table for table in tables_of_files(files, labels, plan.target.name, columns=columns, say=say)}
    for member in plan.members:
        if member.name not in tables:
            raise ZooError(f"the plan blends {member.name}, too; give its table: --scores {member.name}=FILE")
        if tables[member.name].card.checkpoint != member.checkpoint:
            raise ZooError(f"{files[member.name]}: not the table of {member.name} that the plan was fitted on; give that one")
    own = {member.name: tables[member.name] for member in plan.members}
    others = _honest([Member((table,)) for table in tables.values()], truth_of(battles))
    return _rows_of(plan, own, battles), [table for table in others if table.name not in own]


def _rows_of(plan: Plan, tables: dict[str, Table], battles: Battles) -> FittedRows:
    """The rows that all members have. ZooError where the plan was fitted on more."""
    known = battles.frame[battles.frame["label"] >= 0].set_index("id", drop=False)
    usable = {name: table.usable.set_index("id") for name, table in tables.items()}
    ids = sorted(set(known.index).intersection(*(frame.index for frame in usable.values())))
    blend = blend_for(plan.pools, frozenset(usable), planned=False)
    if not ids or blend is None:
        raise ZooError("the members' tables share no labelled row")
    if len(ids) < plan.fitted_rows:
        raise ZooError(f"the members' tables share {len(ids):,} rows now, and the plan was fitted on {plan.fitted_rows:,}")
    frame = known.loc[ids].reset_index(drop=True)
    p = {name: probabilities(table.loc[ids]) for name, table in usable.items()}
    if not plan.ties:
        p = {name: without_ties(table) for name, table in p.items()}
    lengths = text_lengths(frame) if battles.has_texts else np.full((len(frame), 3), np.nan)
    return FittedRows(battles, frame, apply_blend(blend, p, lengths), p, tables, plan.fitted_rows)


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


def other_tables(plan: Plan, store: Path) -> list[Table]:
    """Scored members of the plan's data that are not in it.

    Without those that look as if they had seen the labels: a build would not take them either.
    """
    inside = {member.name for member in plan.members}
    of_data = [table for table in score_tables(store) if table.card.dataset_digest == plan.dataset_digest]
    tables = _honest(standing(of_data).members, truth_at_hand(store, of_data)) if of_data else []
    return list({table.name: table for table in tables if table.name not in inside}.values())


def _honest(members: Sequence[Member], truth: Truth | None) -> list[Table]:
    """The tables of members that neither look as if they had seen the labels nor may have learned them."""
    suspects = suspects_of_data(members, truth)
    return [m.table for place, m in enumerate(members) if place not in suspects and not may_have_learned(m.parts)]
