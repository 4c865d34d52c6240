"""The leaderboard: log loss, cost and memory of every scored member in the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import Contract, rule_name
from zoo.cost.price import price_of
from zoo.pipeline.members import Member, score_tables, standing
from zoo.pipeline.suspicion import suspects_of_data
from zoo.report.text import Column, Page, Table, lowest
from zoo.scores.metric_names import (
    ACCURACY,
    CALIBRATION_ERROR,
    FAILED_ROWS,
    HOURS_25K,
    LOAD_SECONDS,
    LOG_LOSS,
    LOG_LOSS_SE,
    METRICS,
    PEAK_GIB,
    ROWS,
    SECONDS_PER_ROW,
    TOKENS_PER_ROW,
)
from zoo.scores.tables import OK

SAME_ROWS = 0.95  # losses are ranked together where none is of fewer rows than this share of the most


class Row(Contract):
    """One member, or a table of it that another one replaces (`superseded` says which).

    Log loss and its error are in nats. `suspect`: why it looks as if it had seen the labels beside the others of its data, as a
    build judges it; it is never the best, and no build takes it unless asked. That of a superseded table is what its import
    found.

    `fold_rule`: by which prompts were dealt into folds; empty where nobody knows, or nothing was held out.

    None where the battles have no labels or no row was scored. `rows`: those that the log loss is of, or all where there is
    none. Tables of all folds of one recipe are one member, under the fingerprint of the last.
    """

    member: str
    log_loss: float | None
    log_loss_se: float | None
    calibration_error: float | None
    accuracy: float | None
    rows: int
    failed_rows: int
    tokens_per_row: float | None
    load_seconds: float | None
    seconds_per_row: float | None
    hours_25k: float | None
    peak_gib: float | None
    target: str
    dataset: str
    created_at: datetime
    fingerprint: str
    fold_rule: str = ""
    superseded: str = ""
    suspect: str = ""


def leaderboard(store: Path, *, dataset: str | None = None, superseded: bool = False) -> list[Row]:
    """Members of the store, data set by data set, the newest first.

    Of each the table that a build would take. Losses on different rows do not compare: in each data set come first the members
    with about the most rows, the best of them first, then those with fewer; unlabelled ones last. `dataset`: only that one, by
    the beginning of its digest. `superseded`: below all of a data set's members, also the tables that others of their name
    replace.
    """
    found = standing(score_tables(store))
    members = [member for member in found.members if member.table.card.dataset_digest.startswith(dataset or "")]
    suspects = _suspects(members)
    rows = [_row(member, suspect=suspects.get(place, "")) for place, member in enumerate(members)]
    if superseded:
        rows += [
            _row(Member((table,)), reason, table.card.suspect)
            for table, reason in found.superseded
            if table.card.dataset_digest.startswith(dataset or "")
        ]
    newest = {row.dataset: max(r.created_at for r in rows if r.dataset == row.dataset) for row in rows}
    sets = {(s[0].dataset, bool(s[0].superseded)): row_sets(s) for s in _by_data(rows)}

    def rank(row: Row) -> tuple[bool, int, bool, float, str]:
        own = sets[row.dataset, bool(row.superseded)]
        place = next(i for i, group in enumerate(own) if any(row is other for other in group))
        return bool(row.superseded), place, row.log_loss is None, row.log_loss or 0.0, row.member

    rows.sort(key=rank)
    return sorted(rows, key=lambda r: (newest[r.dataset], r.dataset), reverse=True)


def _suspects(members: Sequence[Member]) -> dict[int, str]:
    """By place those that a build would leave out beside the others of their data, with the reason."""
    by_data: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        by_data.setdefault(member.table.card.dataset_digest, []).append(place)
    return {
        places[j]: reason
        for places in by_data.values()
        for j, reason in suspects_of_data([members[place] for place in places]).items()
    }


def row_sets(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one data set in groups of about as many battles, whose losses compare.

    The most battles come first, unlabelled ones last.
    """
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda r: (r.log_loss is None, -r.rows)):
        first = groups[-1][0] if groups else None
        if first is None or row.rows < SAME_ROWS * first.rows or (row.log_loss is None) != (first.log_loss is None):
            groups.append([])
        groups[-1].append(row)
    return groups


def _by_data(rows: Sequence[Row]) -> list[list[Row]]:
    found: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        found.setdefault((row.dataset, bool(row.superseded)), []).append(row)
    return list(found.values())


def _row(member: Member, superseded: str = "", suspect: str = "") -> Row:
    table, parts = member.table, member.parts
    card = table.card
    frame = table.frame
    # The speed of a machine that only emulates is no target's.
    lengths = frame.loc[frame["status"] == OK, "n_tokens"].to_numpy()
    cost = price_of(card.cost, lengths) if not card.emulates else {}
    metrics = _pooled([part.metrics for part in parts])
    peak = max((part.manifest.measurements.peak_bytes for part in parts if part.manifest), default=0)
    assert table.manifest is not None  # of a store
    return Row(
        member=card.member,
        log_loss=metrics.get(LOG_LOSS),
        log_loss_se=metrics.get(LOG_LOSS_SE),
        calibration_error=metrics.get(CALIBRATION_ERROR),
        accuracy=metrics.get(ACCURACY),
        rows=int(metrics.get(ROWS, len(frame))) if LOG_LOSS in metrics else len(frame),
        failed_rows=sum(part.card.failed_rows for part in parts),
        tokens_per_row=cost.get(TOKENS_PER_ROW),
        load_seconds=None if card.emulates or not card.cost.priced else card.cost.load_seconds,
        seconds_per_row=cost.get(SECONDS_PER_ROW),
        hours_25k=cost.get(HOURS_25K),
        peak_gib=peak / 2**30 or None,
        target=f"{card.target} as {card.emulates}" if card.emulates else card.target,
        dataset=card.dataset_digest,
        created_at=max(part.manifest.created_at for part in parts if part.manifest),
        fingerprint=table.fingerprint,
        fold_rule=rule_name(card.fold_rule) if table.says_its_rule else "",
        superseded=superseded,
        suspect=suspect,
    )


def _pooled(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Metrics of one table, or of the tables of a recipe's folds taken together.

    Means are weighted by rows. What the best recalibration of all would gain is not in the parts, so it is left out.
    """
    if len(parts) == 1:
        return parts[0]
    parts = [part for part in parts if LOG_LOSS in part and ROWS in part]
    if not parts:
        return {}
    rows = np.array([part[ROWS] for part in parts])
    pooled = {ROWS: float(rows.sum())}
    for name in (LOG_LOSS, ACCURACY):
        if all(name in part for part in parts):
            pooled[name] = float(rows @ [part[name] for part in parts] / rows.sum())
    if all(LOG_LOSS_SE in part for part in parts):
        pooled[LOG_LOSS_SE] = float(np.sqrt(((rows * [part[LOG_LOSS_SE] for part in parts]) ** 2).sum()) / rows.sum())
    return pooled


COLUMNS = (
    Column("member"),
    Column(METRICS[LOG_LOSS].title, "log_loss", ".4f"),
    Column(METRICS[LOG_LOSS_SE].title, "log_loss_se", ".4f"),
    Column(METRICS[CALIBRATION_ERROR].title, "calibration_error", ".4f", drop=5),
    Column(METRICS[ACCURACY].title, "accuracy", ".3f", drop=4),
    Column(METRICS[ROWS].title, "rows", drop=1),
    Column(METRICS[FAILED_ROWS].title, "failed_rows", drop=7),
    Column(METRICS[TOKENS_PER_ROW].title, "tokens_per_row", ".0f", drop=9),
    Column(METRICS[LOAD_SECONDS].title, "load_seconds", ".1f", drop=10),
    Column(METRICS[SECONDS_PER_ROW].title, "seconds_per_row", ".2g", drop=8),
    Column(METRICS[HOURS_25K].title, "hours_25k", ".2g", drop=2),
    Column(METRICS[PEAK_GIB].title, "peak_gib", ".1f", drop=6),
    Column("target", drop=3),
    Column("data", "dataset", lambda digest: digest[:8], drop=11),
    Column("made", "created_at", lambda moment: moment[:10], drop=12),
)
RULE = Column("folds by", "fold_rule")  # where members of one data set differ in it
TOLD = (Column("superseded", prose=True), Column("suspect", prose=True))  # where any row has it


def leaderboard_page(rows: Sequence[Row]) -> tuple[Page, list[dict[str, Any]]]:
    """Rows as a table with the best of those marked whose losses compare, and as plain data."""
    records = [row.model_dump(mode="json") for row in rows]
    if not rows:
        return ["no scored members yet; `zoo run ENTRY --data BATTLES.csv` makes one", Table(COLUMNS, [])], records
    best: frozenset[int] = frozenset()
    for group in (group for data in _by_data(rows) for group in row_sets(data) if not group[0].superseded):
        honest = [row for row in group if not row.suspect]
        best |= lowest([row.log_loss if any(row is other for other in honest) else None for row in rows])
    rules = _rules_that_differ(rows)
    told = (column for column in TOLD if any(record[column.key or column.title] for record in records))
    columns = (*COLUMNS, *((RULE,) if rules else ()), *told)
    table = Table(columns, [[record[column.key or column.title] for column in columns] for record in records], best)
    note = (
        f"folds go by different rules ({', '.join(rules)}): by one that parts near-copies of a prompt, a model may "
        "have learned from those of its held-out rows, which flatters it; no build mixes them; score all by one: "
        "zoo run NAME --fold-rule RULE"
    )
    return [table, *([note] if rules else [])], records


def _rules_that_differ(rows: Sequence[Row]) -> list[str]:
    """The fold rules of members of one data set, where there is more than one that is known."""
    by_data = [{row.fold_rule for row in data if row.fold_rule} for data in _by_data(rows)]
    return sorted({rule for rules in by_data if len(rules) > 1 for rule in rules})
