"""What a plan's members have said of labelled battles.

It comes from given tables, from finished predictions, or from the store. Rows are known by id and, where the battles have
texts, by these too: ids alone are often a mere count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.members.texts import DIGEST, row_digests
from ensemble.plan import Plan, PlanMember
from ensemble.predict.board import Board, add_given
from ensemble.predict.outcome import REPORT, TABLES
from zoo.data.battles import Battles, dataset_digest, labels_digest, read_battles
from zoo.errors import ZooError
from zoo.pipeline.members import Table, score_tables
from zoo.scores.tables import OK, PROBABILITIES, probabilities, without_ties


@dataclass
class Known:
    """Triples (rows, 3) by member for the rows of a frame of battles.

    NaN where a member has none. `sources`: where they came from, by member.
    """

    tables: dict[str, np.ndarray] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def has(self) -> dict[str, np.ndarray]:
        """The rows, bool (rows,), that each member has scored."""
        return {name: ~np.isnan(table[:, 0]) for name, table in self.tables.items()}


def find_known(plan: Plan, battles: Battles, frame: pd.DataFrame, given: Mapping[str, Path], home: Path) -> Known:
    """What there is for the rows of `frame`, some rows of `battles`, by member.

    `given`: tables of the user's. Else the prediction of `home` that has most of the rows by the member's checkpoint, else such
    a table of its store.
    """
    known = Known()
    if given:
        board = Board(battles.ids, list(given), ties=plan.ties)
        sources = add_given(board, given, ties=plan.ties)
        place = {row_id: row for row, row_id in enumerate(battles.ids)}
        rows = [place[row_id] for row_id in frame["id"]]
        for name, source in sources.items():
            known.tables[name], known.sources[name] = board.table(name)[rows], source
    wanted = [member for member in plan.members if member.name not in known.tables]
    for source, member, found in (
        *_of_predictions(wanted, battles, frame, home / "predict"),
        *_of_store(wanted, plan, battles, frame, home / "store"),
    ):
        there = int((~np.isnan(found[:, 0])).sum())
        before = known.tables.get(member.name)
        if there and (before is None or there > int((~np.isnan(before[:, 0])).sum())):
            known.tables[member.name] = found if plan.ties else without_ties(found)
            known.sources[member.name] = source
    return known


def _of_predictions(
    members: list[PlanMember], battles: Battles, frame: pd.DataFrame, folder: Path
) -> Iterator[tuple[str, PlanMember, np.ndarray]]:
    """Of finished predictions, the newest first, what these members' checkpoints said of the frame's rows."""
    digests = row_digests(frame) if battles.has_texts else None
    reports = sorted(folder.glob(f"*/{REPORT}"), key=lambda path: path.stat().st_mtime, reverse=True) if members else []
    for report in reports:
        there, table = _read_prediction(report, members, frame["id"])
        if not there or not _are_rows(table, digests):
            continue
        for member in there:
            p = table[[f"{member.name} {column}" for column in PROBABILITIES]].to_numpy(dtype=np.float64, copy=True)
            if digests is not None:
                p[table[DIGEST].to_numpy() != digests] = np.nan
            yield f"prediction {report.parent.name}", member, p


def _read_prediction(report: Path, members: list[PlanMember], ids: pd.Series) -> tuple[list[PlanMember], pd.DataFrame]:
    """Those of the members that a prediction ran from the same checkpoint, and its table at these ids.

    A prediction that cannot be read, or is of a version that kept less, has none: it keeps no other away.
    """
    try:
        checkpoints = {member["name"]: member.get("checkpoint") for member in json.loads(report.read_text())["members"]}
        there = [member for member in members if checkpoints.get(member.name) == member.checkpoint]
        if not there:
            return [], pd.DataFrame()
        table = pd.read_parquet(report.with_name(TABLES)).set_index("id").reindex(ids)
    except (OSError, ValueError, KeyError, TypeError):
        return [], pd.DataFrame()
    wanted = [DIGEST, *(f"{member.name} {column}" for member in there for column in PROBABILITIES)]
    return (there, table) if set(wanted) <= set(table.columns) else ([], table)


def _are_rows(table: pd.DataFrame, digests: np.ndarray | None) -> bool:
    """Whether a prediction's table is of the frame's rows: some of them by their texts, or all of them by id alone."""
    if digests is None:
        return bool(table[DIGEST].notna().all())
    return bool((table[DIGEST].to_numpy() == digests).any())


def _of_store(
    members: list[PlanMember], plan: Plan, battles: Battles, frame: pd.DataFrame, store: Path
) -> Iterator[tuple[str, PlanMember, np.ndarray]]:
    """Of the store's score tables, what these members' checkpoints, or imported tables of their names, said of the rows."""
    if not members or not store.exists():
        return
    own = {dataset_digest(battles), labels_digest(battles)}
    for table in score_tables(store):
        for member in members:
            imported = table.card.request is None and member.request is None
            if table.name != member.name or not (imported or table.card.checkpoint == member.checkpoint):
                continue
            rows = _ids_in(table, battles, frame, own, plan.dataset_digest)
            usable = table.usable.set_index("id")
            usable = usable[usable["status"] == OK].reindex([i if i in rows else "" for i in frame["id"]])
            yield f"table {table.which}", member, probabilities(usable)


def _ids_in(table: Table, battles: Battles, frame: pd.DataFrame, own: set[str], fitted: str) -> set[str]:
    """Ids of the frame's rows that a table's battles have too, with the same texts."""
    if table.card.dataset_digest in own:
        return set(frame["id"])
    if table.card.dataset_digest == fitted or table.battles_path is None or not battles.has_texts:
        return set()  # rows of the fit are out already
    try:
        other = read_battles(table.battles_path)
    except ZooError:
        return set()
    theirs = dict(zip(other.frame["id"], row_digests(other.frame).tolist(), strict=True))
    ours = zip(frame["id"], row_digests(frame).tolist(), strict=True)
    return {row_id for row_id, digest in ours if theirs.get(row_id) == digest}
