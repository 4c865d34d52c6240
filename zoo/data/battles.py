"""Battles files: the competition's CSV as validated rows with a digest.

A file is `id, prompt, response_a, response_b[, winner_model_a, winner_model_b, winner_tie]`; texts are JSON lists of turns in
which a turn may be null. A row that cannot be used is reported and kept apart, never dropped: `Battles.ids` holds every id.
"""

from __future__ import annotations

import csv
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.data.lines import MOST_LINE_CHARACTERS, open_lines
from zoo.data.rows import TEXT_COLUMNS, WINNER_COLUMNS, Problem, Turns, parse_row
from zoo.errors import ZooError

KNOWN_COLUMNS = ("id", "model_a", "model_b", *TEXT_COLUMNS, *WINNER_COLUMNS)


@dataclass(frozen=True)
class Battles:
    """A read file.

    `frame`: the usable rows in file order; columns id (str), prompt, response_a, response_b (lists of str | None) and label
    (int8: 0 A, 1 B, 2 tie, -1 unlabelled). `ids`: every id of the file in file order; `bad_ids`: those not in `frame`.
    `extra_columns`: names of the columns that are not the competition's; `kept`: those of them that the reader was asked for,
    as text by row id, also of rows that are not usable (of an id that occurs twice, the first).
    """

    path: Path
    frame: pd.DataFrame
    ids: tuple[str, ...]
    bad_ids: tuple[str, ...]
    problems: tuple[Problem, ...]
    labelled: bool
    extra_columns: tuple[str, ...]
    kept: pd.DataFrame

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "error")


def read_battles(path: Path, *, strict: bool = True, keep: Sequence[str] = ()) -> Battles:
    """Read a CSV of battles, plain or gzipped.

    `keep`: columns beside the competition's to hold in `kept`, where it has them. Raises ZooError where the file as a whole
    cannot be used: unreadable, a column missing, an id missing or doubled. With `strict=False` the latter are only in
    `problems`, which is what a report wants. Bad rows never raise.
    """
    path = Path(path)
    try:
        with open_lines(path) as lines:
            csv.field_size_limit(MOST_LINE_CHARACTERS)  # the default refuses fields above 128 KiB
            battles = _parse(path, csv.reader(lines), keep)
    except (OSError, EOFError, zlib.error) as error:
        raise ZooError(f"{path}: cannot be read ({error}); give a .csv or .csv.gz file") from error
    except csv.Error as error:
        raise ZooError(f'{path}: not a CSV file ({error}); quote fields with " and double the quotes inside') from error
    fatal = next((p for p in battles.problems if p.fatal), None)
    if strict and fatal:
        where = "" if fatal.row_number is None else f" row {fatal.row_number}:"
        raise ZooError(f"{path}:{where} {fatal.message}; `zoo data validate` lists every problem")
    return battles


def _parse(path: Path, rows: Iterator[list[str]], keep: Sequence[str]) -> Battles:
    header = [name.strip() for name in next(rows, [])]
    problems = _header_problems(header)
    extra = tuple(name for name in header if name not in KNOWN_COLUMNS)
    if any(p.fatal for p in problems):
        return Battles(path, _frame([]), (), (), tuple(problems), False, extra, _kept({}, ()))
    column = {name: i for i, name in enumerate(header)}
    kept_columns = {name: column[name] for name in keep if name in extra}
    kept: dict[str, list[str]] = {}
    records: list[tuple[Any, ...]] = []
    good: dict[str, bool] = {}  # every id in file order -> whether its row is usable
    body = [row for row in rows if row]
    labelled = _is_labelled(body, column)
    for number, row in enumerate(body, start=1):
        row_id = row[column["id"]].strip() if len(row) > column["id"] else ""
        record, found = parse_row(row, row_id, number, column, width=len(header), labelled=labelled)
        if row_id in good:
            found.append(Problem(row_id, number, "duplicate_id", f"id {row_id} occurs again; ids must be unique", "error"))
        if kept_columns:
            kept.setdefault(row_id, [row[i] if i < len(row) else "" for i in kept_columns.values()])
        problems += found
        if any(p.severity == "error" for p in found):
            good.setdefault(row_id, False)
        else:
            good[row_id] = True
            records.append((row_id, *record))
    if not body:
        problems.append(Problem(None, None, "empty_file", "no rows below the header; give at least one battle", "error"))
    good.pop("", None)
    bad_ids = tuple(row_id for row_id, usable in good.items() if not usable)
    return Battles(
        path, _frame(records), tuple(good), bad_ids, tuple(problems), labelled, extra, _kept(kept, tuple(kept_columns))
    )


def _frame(records: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(records, columns=["id", *TEXT_COLUMNS, "label"])
    return frame.astype({"id": "str", "label": "int8"})


def _kept(cells: dict[str, list[str]], columns: tuple[str, ...]) -> pd.DataFrame:
    rows = np.array(list(cells.values()), dtype=object).reshape(len(cells), len(columns))
    return pd.DataFrame(rows, index=pd.Index(list(cells), name="id", dtype="str"), columns=list(columns), dtype="str")


def _header_problems(header: list[str]) -> list[Problem]:
    if not header:
        return [
            Problem(None, None, "empty_file", f"the file is empty; its first line must name {', '.join(TEXT_COLUMNS)}", "error")
        ]
    problems = []
    present = [name for name in WINNER_COLUMNS if name in header]
    needed = ("id", *TEXT_COLUMNS, *(WINNER_COLUMNS if present else ()))
    for name in needed:
        if name not in header:
            message = f"column {name} is missing; the header has {', '.join(header)[:200]}"
            problems.append(Problem(None, None, "missing_column", message, "error"))
        elif header.count(name) > 1:
            problems.append(Problem(None, None, "duplicate_column", f"column {name} occurs more than once; keep one", "error"))
    extra = [name for name in header if name not in KNOWN_COLUMNS]
    if extra:
        message = f"columns not of the competition, not used: {', '.join(extra)[:500]}"
        problems.append(Problem(None, None, "extra_columns", message, "warning"))
    return problems


def _is_labelled(body: list[list[str]], column: dict[str, int]) -> bool:
    """Winner columns that are blank in every row are those of a test file."""
    if WINNER_COLUMNS[0] not in column:
        return False
    places = [column[name] for name in WINNER_COLUMNS]
    return any(row[i].strip() for row in body for i in places if i < len(row))


def dataset_digest(battles: Battles) -> str:
    """SHA-256 over ids, texts and labels of the usable rows, whatever their order."""
    return _digest(battles, ("id", *TEXT_COLUMNS, "label"))


def texts_digest(battles: Battles) -> str:
    """SHA-256 over ids and texts of the usable rows, whatever their order.

    That is what a member reads of them to score them.
    """
    return _digest(battles, ("id", *TEXT_COLUMNS))


def _digest(battles: Battles, names: Sequence[str]) -> str:
    columns = (battles.frame[name] for name in names)
    rows = (hashlib.sha256(json.dumps(row).encode()).digest() for row in zip(*columns, strict=True))
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def join_turns(turns: Turns, separator: str = "\n\n") -> str:
    """The turns as one text; null turns are empty."""
    return separator.join(turn or "" for turn in turns)


def count_characters(frame: pd.DataFrame) -> np.ndarray:
    """Characters of prompt and both responses, turns joined: float64 (rows,)."""
    columns = (frame[name] for name in TEXT_COLUMNS)
    return np.array([sum(len(join_turns(turns)) for turns in row) for row in zip(*columns, strict=True)], dtype=np.float64)
