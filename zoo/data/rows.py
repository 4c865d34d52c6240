"""One row of a battles file: its texts, its label, and what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

TEXT_COLUMNS = ("prompt", "response_a", "response_b")
WINNER_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")  # in the order of contracts.LABELS
UNLABELLED = -1
LARGE_ROW_CHARACTERS = 1_000_000
FATAL = frozenset({"missing_column", "duplicate_column", "empty_file", "duplicate_id", "missing_id"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}

Turns = Sequence[str | None]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a row, or with the whole file (`row_number` None).

    Rows are counted from 1 below the header. An error keeps the row apart; a warning leaves it usable.
    """

    row_id: str | None
    row_number: int | None
    kind: str
    message: str
    severity: Literal["error", "warning"]

    @property
    def fatal(self) -> bool:
        """Whether the whole file is unusable.

        Its rows cannot be read or a submission for it cannot be keyed.
        """
        return self.severity == "error" and self.kind in FATAL


def parse_row(
    row: list[str], row_id: str, number: int, column: dict[str, int], *, width: int, labelled: bool
) -> tuple[tuple[Any, ...], list[Problem]]:
    """(prompt, response_a, response_b, label) and what is wrong.

    The values count only where no problem is an error.
    """
    found: list[Problem] = []

    def report(kind: str, message: str, severity: Literal["error", "warning"]) -> None:
        found.append(Problem(row_id or None, number, kind, message, severity))

    if not row_id:
        report("missing_id", "the id is empty; give every row an id of its own", "error")
    if len(row) != width:
        report("field_count", f"{len(row)} fields where the header names {width}; quote the fields", "error")
        return (), found
    if _SURROGATE.search(row_id):
        report("missing_id", "the id is not valid text; use plain characters", "error")
    texts: list[list[str | None]] = []
    for name in TEXT_COLUMNS:
        try:
            turns, cleaned = _parse_turns(row[column[name]])
        except ValueError as error:
            report("not_json_list", f"{name}: {error}; it must be a JSON list of texts and nulls", "error")
            continue
        if cleaned:
            report("lone_surrogates", f"{name} holds lone surrogates or invalid UTF-8: each read as U+FFFD", "warning")
        texts.append(turns)
    if len(texts) == len(TEXT_COLUMNS):
        found += _text_warnings(texts, row_id, number)
    label = UNLABELLED
    if labelled:
        cells = [row[column[name]] for name in WINNER_COLUMNS]
        label = _label(cells)
        if label == UNLABELLED:
            report("winner_count", f"winners are {', '.join(c or 'blank' for c in cells)}; exactly one must be 1", "error")
    return (*texts, label), found


def _parse_turns(cell: str) -> tuple[list[str | None], bool]:
    """Turns of one field, and whether lone surrogates were replaced.

    ValueError says what is wrong with the field.
    """
    try:
        turns = json.loads(cell, strict=False)  # a raw line break or tab inside a text is harmless
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ValueError(f"undecodable JSON ({reason}): {cell[:40]!a}") from None
    if not isinstance(turns, list):
        raise ValueError(f"JSON, but not a list: {cell[:40]!a}")
    if not all(turn is None or isinstance(turn, str) for turn in turns):
        raise ValueError("a turn is neither text nor null")
    if not any(turn and _SURROGATE.search(turn) for turn in turns):
        return turns, False
    return [turn and _SURROGATE.sub("\ufffd", turn) for turn in turns], True


def _text_warnings(texts: list[list[str | None]], row_id: str, number: int) -> list[Problem]:
    found = []
    counts = [len(turns) for turns in texts]
    empty = [not any(turn and turn.strip() for turn in turns) for turns in texts]
    characters = sum(len(turn or "") for turns in texts for turn in turns)
    if len(set(counts)) > 1:
        message = f"turn counts differ: prompt {counts[0]}, response_a {counts[1]}, response_b {counts[2]}"
        found.append(Problem(row_id, number, "turn_counts", message, "warning"))
    if empty[0]:
        found.append(Problem(row_id, number, "empty_prompt", "the prompt has no text", "warning"))
    if empty[1] and empty[2]:
        found.append(Problem(row_id, number, "empty_answers", "both answers are empty", "warning"))
    if characters > LARGE_ROW_CHARACTERS:
        message = f"{characters:,} characters in one row; an unclosed quote further up can cause it"
        found.append(Problem(row_id, number, "large_row", message, "warning"))
    return found


def _label(cells: list[str]) -> int:
    """0, 1 or 2 where exactly one of the three cells is 1 and the others are 0, else UNLABELLED."""
    values = [_TRUTH.get(cell.strip().lower()) for cell in cells]
    return values.index(1) if None not in values and sum(v or 0 for v in values) == 1 else UNLABELLED
