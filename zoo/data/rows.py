"""One row of a battles file: its texts, its label, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.data.columns import TEXT_COLUMNS, UNLABELLED, cell_text, label_of
from zoo.data.turns import SURROGATE, conversation_of, turns_of

LARGE_ROW_CHARACTERS = 1_000_000
FATAL = frozenset({"missing_column", "duplicate_column", "empty_file", "duplicate_id", "missing_id", "control_in_id"})
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")  # what may end a line of a submission, or move a terminal's cursor

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a row, or with the whole file (`row_number` None).

    Rows are counted from 1 below the header. An error keeps the row apart; a warning leaves it usable.
    """

    row_id: str | None
    row_number: int | None
    kind: str
    message: str
    severity: Severity

    @property
    def fatal(self) -> bool:
        """Whether the whole file is unusable.

        Its rows cannot be read or a submission for it cannot be keyed.
        """
        return self.severity == "error" and self.kind in FATAL


@dataclass
class ParsedRow:
    """What a row holds, as far as it can be read, and what is wrong with it.

    `texts`: turns of prompt, response_a and response_b; a field that cannot be read is None. They count as a battle's only
    where no problem is an error.
    """

    row_id: str
    number: int
    texts: list[list[str | None] | None] = field(default_factory=lambda: [None] * len(TEXT_COLUMNS))
    label: int = UNLABELLED
    problems: list[Problem] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)

    def report(self, kind: str, message: str, severity: Severity = "error") -> None:
        self.problems.append(Problem(self.row_id or None, self.number, kind, message, severity))


def check_id(row: ParsedRow, cell: Any) -> None:
    """Report an id that no submission could be keyed by; `cell` as the file has it."""
    text = cell_text(cell)
    if not row.row_id:
        row.report("missing_id", "the id is empty; give every row an id of its own")
    elif _CONTROL.search(text):
        row.report("control_in_id", f"the id {text[:40]!a} holds a line break or another control character; take it out")
    elif SURROGATE.search(text):
        row.report("missing_id", "the id is not valid text; use plain characters")


def read_texts(row: ParsedRow, cells: Sequence[Any], names: Sequence[str], plain: Sequence[bool]) -> None:
    """Turns of a row's text cells: prompt and both responses, or two whole conversations."""
    if len(names) == 2:
        _read_conversations(row, cells, names)
    else:
        _read_fields(row, cells, names, plain)
    texts = [turns for turns in row.texts if turns is not None]
    if len(texts) == len(TEXT_COLUMNS):
        _text_warnings(row, texts)


def _read_fields(row: ParsedRow, cells: Sequence[Any], names: Sequence[str], plain: Sequence[bool]) -> None:
    for place, (name, cell) in enumerate(zip(names, cells, strict=True)):
        try:
            row.texts[place], cleaned = turns_of(cell, plain=plain[place], answer=place > 0)
        except ValueError as error:
            row.report("not_json_list", f"{name}: {error}; it must be a JSON list of texts and nulls")
            continue
        if cleaned:
            row.report("lone_surrogates", f"{name} holds lone surrogates or invalid UTF-8: each read as U+FFFD", "warning")


def _read_conversations(row: ParsedRow, cells: Sequence[Any], names: Sequence[str]) -> None:
    try:
        row.texts[:], cleaned = conversation_of(*cells)
    except ValueError as error:
        row.report("not_messages", f"{' and '.join(names)}: {error}; each must be a list of messages with role and content")
        return
    if cleaned:
        row.report("lone_surrogates", "holds lone surrogates or invalid UTF-8: each read as U+FFFD", "warning")


def read_label(row: ParsedRow, cells: Sequence[Any]) -> None:
    """The row's label, in a labelled file."""
    row.label = label_of(cells)
    if row.label != UNLABELLED:
        return
    texts = [cell_text(cell).strip()[:40] or "blank" for cell in cells]
    if len(cells) == 1:
        row.report("winner_unknown", f"winner is {texts[0]}; it must be model_a, model_b, tie or both_bad")
    else:
        row.report("winner_count", f"winners are {', '.join(texts)}; exactly one must be 1")


def _text_warnings(row: ParsedRow, texts: Sequence[Sequence[str | None]]) -> None:
    counts = [len(turns) for turns in texts]
    empty = [not any(turn and turn.strip() for turn in turns) for turns in texts]
    characters = sum(len(turn or "") for turns in texts for turn in turns)
    if len(set(counts)) > 1:
        message = f"turn counts differ: prompt {counts[0]}, response_a {counts[1]}, response_b {counts[2]}"
        row.report("turn_counts", message, "warning")
    if empty[0]:
        row.report("empty_prompt", "the prompt has no text", "warning")
    if empty[1] and empty[2]:
        row.report("empty_answers", "both answers are empty", "warning")
    if characters > LARGE_ROW_CHARACTERS:
        message = f"{characters:,} characters in one row; an unclosed quote further up can cause it"
        row.report("large_row", message, "warning")
