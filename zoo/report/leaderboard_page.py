"""The leaderboard for people: a table for each group of members whose losses compare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from zoo.report.leaderboard import Row
from zoo.report.text import Column, Page, Table, digits
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

COLUMNS = (
    Column("member"),
    Column(METRICS[LOG_LOSS].title, "log_loss", ".4f"),
    Column(METRICS[LOG_LOSS_SE].title, "log_loss_se", ".4f", drop=3),
    Column("to best", "difference", "+.4f"),
    Column("its se", "difference_se", ".4f", drop=1),
    Column(METRICS[HOURS_25K].title, "hours_25k", digits(2), drop=2),
    Column("cost", "cost_basis", drop=4),
    Column(METRICS[ROWS].title, "rows", drop=5),
    Column(METRICS[ACCURACY].title, "accuracy", ".3f", drop=6),
    Column(METRICS[CALIBRATION_ERROR].title, "calibration_error", ".4f", drop=7),
    Column("target", drop=8),
    Column(METRICS[PEAK_GIB].title, "peak_gib", ".1f", drop=9),
    Column(METRICS[FAILED_ROWS].title, "failed_rows", drop=10),
    Column(METRICS[SECONDS_PER_ROW].title, "seconds_per_row", digits(2), drop=11),
    Column(METRICS[TOKENS_PER_ROW].title, "tokens_per_row", ".0f", drop=12),
    Column(METRICS[LOAD_SECONDS].title, "load_seconds", ".1f", drop=13),
    Column("made", "created_at", lambda moment: moment[:10], drop=14),
)
MARK = Column("mark")  # champion or suspect, where any row is
TABLE = Column("table", "fingerprint", lambda fingerprint: fingerprint[:8])
RULE = Column("folds by", "fold_rule")  # where members of one data set differ in it
NONE_YET = "no scored members yet; `zoo run ENTRY --data BATTLES.csv` makes one"


def leaderboard_page(rows: Sequence[Row]) -> tuple[Page, list[dict[str, Any]]]:
    """Rows as tables under headings with notes below them, and as plain data."""
    records = [row.model_dump(mode="json") for row in rows]
    if not rows:
        return [NONE_YET, Table(COLUMNS, [])], records
    page: list[str | Table] = []
    for number, (key, group) in enumerate(groupby(rows, key=lambda row: (row.dataset, bool(row.superseded), row.group))):
        own = list(group)
        page += [*([""] if number else []), heading(own, first=key[2] == 0), _table(own, rows)]
    return [*page, *_notes(rows)], records


def leaderboard_table(rows: Sequence[Row]) -> Table:
    """All rows as one table with every column, for CSV."""
    names = list(Row.model_fields)
    return Table([Column(name) for name in names], [[row.model_dump(mode="json")[name] for name in names] for row in rows])


def heading(rows: Sequence[Row], *, first: bool = True) -> str:
    """What a group's losses are of: the data, and how many battles its members have in common."""
    row = rows[0]
    name = f"{row.data} {row.dataset[:8]}"
    if row.superseded:
        return f"{name}: tables that others of their name replace"
    if row.log_loss is None:
        return f"{name}: {row.rows:,} battles without labels"
    common = row.common_rows if row.common_rows is not None else min(one.rows for one in rows)
    other = "" if first else "other or fewer battles: "
    if len(rows) == 1:
        return f"{name}: {other}{common:,} labelled battles"
    paired = "; differences are paired, errors by prompts" if any(one.difference is not None for one in rows) else ""
    return f"{name}: {other}{common:,} labelled battles that all {len(rows)} have{paired}"


def _table(own: Sequence[Row], rows: Sequence[Row]) -> Table:
    """One group as a table; all groups of members have the same columns, so that they read alike."""
    rest = (*COLUMNS[1:], *((RULE,) if _rules_that_differ(rows) else ()))
    if own[0].superseded:  # tables of one name are told apart by what `zoo rm` and `--prefer` take
        columns = (COLUMNS[0], TABLE, *(column for column in rest if not column.key.startswith("difference")))
    else:
        marked = any(_mark(row) for row in rows if not row.superseded)
        columns = (COLUMNS[0], *((MARK,) if marked else ()), *rest)
    records = [{**row.model_dump(mode="json"), "mark": _mark(row)} for row in own]
    cells = [[record[column.key or column.title] for column in columns] for record in records]
    return Table(columns, cells, frozenset(place for place, row in enumerate(own) if row.is_best))


def _mark(row: Row) -> str:
    return "suspect" if row.suspect else "champion" if row.is_champion else ""


def _notes(rows: Sequence[Row]) -> list[str]:
    """What is to be said of single rows, and of rules that differ."""
    told = [f"{row.member}, {row.rows:,} rows: {row.superseded}" for row in rows if row.superseded]
    told += [f"{row.member}: {row.suspect}" for row in rows if row.suspect and not row.superseded]
    told += [f"{row.member}: no cost: {row.cost_note}" for row in rows if row.cost_note and not row.superseded]
    told += [
        f"{row.data}: its file is not where it was, or is another one: no paired differences, errors as each stage noted them"
        for row in rows
        if row.log_loss is not None and row.common_rows is None and not row.superseded
    ]
    if rules := _rules_that_differ(rows):
        told.append(
            f"folds go by different rules ({', '.join(rules)}): by one that parts near-copies of a prompt, a model may "
            "have learned from those of its held-out rows, which flatters it; no build mixes them; score all by one: "
            "zoo run NAME --fold-rule RULE"
        )
    return ["", *dict.fromkeys(told)] if told else []


def _rules_that_differ(rows: Sequence[Row]) -> list[str]:
    """The fold rules of members of one data set, where there is more than one that is known."""
    by_data: dict[str, set[str]] = {}
    for row in rows:
        if row.fold_rule and not row.superseded:
            by_data.setdefault(row.dataset, set()).add(row.fold_rule)
    return sorted({rule for rules in by_data.values() if len(rules) > 1 for rule in rules})
