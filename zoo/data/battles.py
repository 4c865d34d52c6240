"""Battles files as validated rows with a digest, whatever their format and kind of columns.

The competition's columns are `id, prompt, response_a, response_b[, winner_model_a, winner_model_b, winner_tie]`, texts JSON
lists of turns in which a turn may be null; `zoo.data.columns` has the other kinds, `zoo.data.formats` the formats. A row that
cannot be used is reported and kept apart, never dropped: `Battles.ids` holds every id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.data.columns import (
    COMPETITION,
    MODEL_COLUMNS,
    TEXT_COLUMNS,
    VOTES,
    WSDM,
    Columns,
    cell_text,
    columns_of,
    ids_of,
    is_known,
    usual_names,
)
from zoo.data.formats import Cells, Row, open_cells
from zoo.data.rows import ParsedRow, Problem, check_id, read_label, read_texts
from zoo.data.turns import Turns, are_plain, lists_among_texts
from zoo.errors import ZooError


@dataclass(frozen=True)
class Battles:
    """A read file.

    `frame`: the usable rows in file order; columns id (str), prompt, response_a, response_b (lists of str | None) and label
    (int8: 0 A, 1 B, 2 tie, -1 unlabelled). `ids`: every id of the file in file order; `bad_ids`: those not in `frame`, and
    `bad_prompts` the prompts of those whose prompt can be read. `extra_columns`: names of the columns that hold neither
    texts nor winners; `kept`: those of them, and the names of models, that the reader was asked for, as text by row id,
    also of rows that are not usable (of an id that occurs twice, the first). `format`, `kind` and `plain` say what was
    read: see `told`. `has_texts` False: ids and winners alone, perhaps with the prompts; texts that are not there have no
    turns. `lists_as_text`: cells of plain columns that are JSON lists of texts, taken as they stand.
    """

    path: Path
    frame: pd.DataFrame
    ids: tuple[str, ...]
    bad_ids: tuple[str, ...]
    problems: tuple[Problem, ...]
    labelled: bool
    extra_columns: tuple[str, ...]
    kept: pd.DataFrame
    format: str = ""
    kind: str = COMPETITION
    plain: tuple[str, ...] = ()
    bad_prompts: Mapping[str, Turns] = field(default_factory=dict)
    has_texts: bool = True
    lists_as_text: int = 0

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def can_tie(self) -> bool:
        """Whether a battle of this kind of file can be a tie.

        That no tie occurs in a file does not say so.
        """
        return self.kind != WSDM

    @property
    def told(self) -> str:
        """What was read, in a line: kind of columns, format, and which columns are plain text."""
        if not self.has_texts:
            prompts = any(self.frame["prompt"])
            return f"ids and winners alone; {self.format}; folds go by {'prompt' if prompts else 'id, for want of prompts'}"
        if not self.plain:
            return f"{self.kind} columns; {self.format}"
        where = "plain text" if len(self.plain) == len(TEXT_COLUMNS) else f"{', '.join(self.plain)}: plain text"
        lists = f" ({self.lists_as_text:,} cells are JSON lists of texts, taken as they stand)" if self.lists_as_text else ""
        return f"{self.kind} columns; {self.format}; {where}, one turn each{lists}"


def read_battles(
    path: Path, *, strict: bool = True, keep: Sequence[str] = (), models: bool = False, need_texts: bool = True
) -> Battles:
    """Read a file of battles of any format and kind of columns that is known.

    Without `need_texts` a file may also lack the responses, or all texts: see `Battles.has_texts`.
    `keep`: columns beside those of a battle to hold in `kept`, where it has them; with `models` those of the models too. Raises
    ZooError where the file as a whole cannot be used: unreadable, a column missing, an id missing, doubled or with control
    characters. With `strict=False` the latter are only in `problems`, which is what a report wants. Bad rows never raise;
    `zoo.data.usable` counts them.
    """
    path = Path(path)
    with open_cells(path, is_known) as cells:
        kept = (*(name for name in keep if name not in MODEL_COLUMNS), *(MODEL_COLUMNS if models else ()))
        battles = _parse(path, _with_usual_names(cells), kept, need_texts)
    fatal = next((p for p in battles.problems if p.fatal), None)
    if strict and fatal:
        where = "" if fatal.row_number is None else f" row {fatal.row_number}:"
        raise ZooError(f"{path}:{where} {fatal.message}; `zoo data validate` lists every problem")
    return battles


def _with_usual_names(cells: Cells) -> Cells:
    """The same cells under the names of columns that are looked for, where the file's differ in case."""
    own = usual_names(cells.header)
    usual = {name: known for known, name in own.items()}
    header = [usual.get(name, name) for name in cells.header]
    return Cells(header, lambda names: cells.rows([own.get(name, name) for name in names]), cells.how)


def _parse(path: Path, cells: Cells, keep: Sequence[str], need_texts: bool) -> Battles:
    columns = columns_of(cells.header, need_texts=need_texts)
    problems = _header_problems(columns)
    if any(p.fatal for p in problems):
        return Battles(path, _frame([]), (), (), tuple(problems), False, columns.extra, _kept({}, ()), cells.how)
    kept_names = tuple(
        name for name in dict.fromkeys(keep) if name in (*columns.extra, *MODEL_COLUMNS) and name in columns.header
    )
    body = list(cells.rows((*columns.needed, *kept_names)))
    if not body:
        problems.append(Problem(None, None, "empty_file", "no rows below the header; give at least one row", "error"))
    plain = _plain_columns(columns, [row for row, _ in body])
    labelled = _is_labelled(columns, [row for row, _ in body])
    rows = _rows(body, columns, plain, labelled=labelled)
    good: dict[str, bool] = {}  # every id in file order -> whether its row is usable
    for parsed in rows:
        good[parsed.row_id] = parsed.usable or good.get(parsed.row_id, False)
    good.pop("", None)
    kept: dict[str, list[str]] = {}
    for parsed, (row, _) in zip(rows, body, strict=True):
        kept.setdefault(parsed.row_id, [cell_text(cell) for cell in row[len(columns.needed) :]])
    return Battles(
        path,
        _frame([(parsed.row_id, *parsed.texts, parsed.label) for parsed in rows if parsed.usable]),
        tuple(good),
        tuple(row_id for row_id, usable in good.items() if not usable),
        (*problems, *(problem for parsed in rows for problem in parsed.problems)),
        labelled,
        columns.extra,
        _kept(kept if kept_names else {}, kept_names),
        cells.how,
        columns.kind([parsed.label for parsed in rows]),
        tuple(name for name, is_text in zip(columns.texts, plain, strict=True) if is_text),
        {parsed.row_id: parsed.texts[0] for parsed in rows if not parsed.usable and parsed.texts[0] is not None},
        columns.has_texts,
        sum(lists_among_texts([row[1 + place] for row, _ in body]) for place, is_text in enumerate(plain) if is_text),
    )


def _rows(body: Sequence[Row], columns: Columns, plain: Sequence[bool], *, labelled: bool) -> list[ParsedRow]:
    """Every row of the file; of those with one id all but the first have a problem."""
    rows, seen = [], set()
    for number, ((cells, width), row_id) in enumerate(zip(body, ids_of([row[0] for row, _ in body]), strict=True), start=1):
        row = _row(cells, width, row_id, number, columns, plain, labelled=labelled)
        if row_id in seen:
            row.report("duplicate_id", f"id {row_id} occurs again; ids must be unique")
        seen.add(row_id)
        rows.append(row)
    return rows


def _row(
    cells: list[Any], width: int, row_id: str, number: int, columns: Columns, plain: Sequence[bool], *, labelled: bool
) -> ParsedRow:
    row, n_texts = ParsedRow(row_id, number), len(columns.texts)
    check_id(row, cells[0])
    if width != len(columns.header):
        row.report("field_count", f"{width} fields where the header names {len(columns.header)}; quote the fields")
        return row
    read_texts(row, cells[1 : 1 + n_texts], columns.texts, plain)
    if not columns.has_texts:
        row.texts = [turns or [] for turns in row.texts]
    if labelled:
        read_label(row, cells[1 + n_texts : 1 + n_texts + len(columns.winners)])
    return row


def _frame(records: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(records, columns=["id", *TEXT_COLUMNS, "label"])
    return frame.astype({"id": "str", "label": "int8"})


def _kept(cells: dict[str, list[str]], columns: tuple[str, ...]) -> pd.DataFrame:
    rows = np.array(list(cells.values()), dtype=object).reshape(len(cells), len(columns))
    return pd.DataFrame(rows, index=pd.Index(list(cells), name="id", dtype="str"), columns=list(columns), dtype="str")


def _header_problems(columns: Columns) -> list[Problem]:
    header = columns.header
    if not header:
        winners = "" if set(TEXT_COLUMNS) <= set(columns.needed) else " and winners"  # of ids with winners alone
        message = f"the file is empty; its first line must name {', '.join(columns.needed)}{winners}"
        return [Problem(None, None, "empty_file", message, "error")]
    problems = []
    for name in columns.needed:
        if name in columns.missing:
            mend = "; give every row an id of its own" if name == columns.id else ""
            message = f"column {name} is missing; the header has {', '.join(header)[:200]}{mend}"
            problems.append(Problem(None, None, "missing_column", message, "error"))
        elif header.count(name) > 1:
            problems.append(Problem(None, None, "duplicate_column", f"column {name} occurs more than once; keep one", "error"))
    extra = [name for name in columns.extra if name not in VOTES]
    if extra:
        message = f"columns that are not read: {', '.join(extra)[:500]}"
        problems.append(Problem(None, None, "extra_columns", message, "warning"))
    return problems


def _plain_columns(columns: Columns, rows: Sequence[list[Any]]) -> list[bool]:
    """Which text columns are plain text; a column without any text is as the others are."""
    if len(columns.texts) == 2:
        return [False, False]  # whole conversations are messages
    found = are_plain([[row[1 + place] for row in rows] for place in range(len(columns.texts))])
    return [any(found) if plain is None else plain for plain in found]


def _is_labelled(columns: Columns, rows: Sequence[list[Any]]) -> bool:
    """Winner columns that are blank in every row are those of a test file."""
    first = 1 + len(columns.texts)
    places = range(first, first + len(columns.winners))
    return any(cell_text(row[place]).strip() for row in rows for place in places)


def dataset_digest(battles: Battles) -> str:
    """SHA-256 over ids, texts and labels of the usable rows.

    Their order and the file's format do not matter. Where a file has no texts it is its `labels_digest`.
    """
    if not battles.has_texts:
        return labels_digest(battles)
    return _digest(*(battles.frame[name] for name in ("id", *TEXT_COLUMNS, "label")))


def texts_digest(battles: Battles) -> str:
    """SHA-256 over ids and texts of the usable rows, whatever their order.

    That is what a member reads of them to score them.
    """
    return _digest(*(battles.frame[name] for name in ("id", *TEXT_COLUMNS)))


def labels_digest(battles: Battles) -> str:
    """SHA-256 over ids and labels of the usable rows.

    A file with texts and its ids and winners alone have the same.
    """
    none: list[list[str]] = [[]] * len(battles.frame)
    return _digest(battles.frame["id"], none, none, none, battles.frame["label"])


def _digest(*columns: Sequence[Any] | pd.Series) -> str:
    rows = (hashlib.sha256(json.dumps(row).encode()).digest() for row in zip(*columns, strict=True))
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def join_turns(turns: Turns, separator: str = "\n\n") -> str:
    """The turns as one text; null turns are empty."""
    return separator.join(turn or "" for turn in turns)


def count_characters(frame: pd.DataFrame) -> np.ndarray:
    """Characters of prompt and both responses, turns joined: float64 (rows,)."""
    total: np.ndarray = text_lengths(frame).sum(axis=1)
    return total


def text_lengths(frame: pd.DataFrame) -> np.ndarray:
    """Characters of prompt, response A and response B, turns joined.

    float64 (rows, 3).
    """
    columns = [[len(join_turns(turns)) for turns in frame[name]] for name in TEXT_COLUMNS]
    return np.array(columns, dtype=np.float64).T
