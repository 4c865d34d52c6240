"""Logs of conversations in the shape of LMSYS-Chat-1M: who answered what to which prompt.

Columns: `conversation_id`, `model`, `conversation` (messages of role and content, or their JSON), and where a log has them
`language`, `source`, `licence`. A row that cannot be used is told with its reason and stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.columns import cell_text
from zoo.data.formats import read_records
from zoo.data.turns import SURROGATE, questions_and_answers
from zoo.errors import ZooError

COLUMNS = {  # what is looked for, and under which names, the first that a log has
    "id": ("conversation_id", "id"),
    "model": ("model", "model_name"),
    "conversation": ("conversation", "messages", "conversations"),
    "language": ("language",),
    "source": ("source", "dataset"),
    "licence": ("licence", "license"),
    "status": ("status",),
}
NAMES = tuple(name for names in COLUMNS.values() for name in names)
# Why a row is not used.
NO_OBJECT, NO_ID, NO_MODEL = "not a JSON object", "no conversation_id", "no model"
NO_CONVERSATION, NO_QUESTION, NO_ANSWER = (
    "no conversation that can be read",
    "a turn without a question",
    "a turn without an answer",
)
TOO_LONG = "too long"
WHOLE = ("", "ok", "cut")  # statuses of `zoo data generate` with an answer to every turn; `cut` ones are labelling's to drop


@dataclass(frozen=True)
class Conversation:
    """One usable row: a model's answers to a user's turns, as many of each."""

    row: int
    id: str
    model: str
    asked: list[str]
    answered: list[str]
    language: str
    source: str
    licence: str


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be used: why, and an example's particulars for people."""

    row: int
    reason: str
    detail: str = ""


def read_log(path: Path, most_characters: int) -> Iterator[Conversation | Unusable]:
    """The rows of a log of any format that is read, in order; its rows are counted from 1.

    A conversation of more than `most_characters` is not usable. ZooError where the file as a whole cannot be read, or lacks the
    columns of a log: no row has them.
    """
    found, first = False, ""
    for number, record in read_records(path, NAMES):
        row = _conversation(number, record, most_characters)
        found = found or (
            isinstance(record, dict) and all(_cell(record, what) is not None for what in ("model", "conversation"))
        )
        first = first or (f"; the first row has {', '.join(map(str, record))[:200]}" if isinstance(record, dict) else "")
        yield row
    if not found:
        raise ZooError(
            f"{path}: no row has a model and a conversation{first}; give a log with conversation_id, model, conversation"
        )


def _conversation(row: int, record: Mapping[str, Any] | str, most_characters: int) -> Conversation | Unusable:
    if isinstance(record, str):
        return Unusable(row, NO_OBJECT, record)
    cells = {what: cell_text(_cell(record, what)).strip() for what in COLUMNS if what != "conversation"}
    text = {what: SURROGATE.sub("\ufffd", cell) for what, cell in cells.items()}
    for what, reason in (("id", NO_ID), ("model", NO_MODEL)):
        if not text[what]:
            return Unusable(row, reason)
    if text["status"] not in WHOLE:
        return Unusable(row, f"status {text['status'].partition(':')[0]!r}", f"{text['id']}: {text['status']}")
    try:
        asked, answered = questions_and_answers(_cell(record, "conversation"))
    except ValueError as error:
        return Unusable(row, NO_CONVERSATION, f"{text['id']}: {error}")
    if not asked or not all(turn and turn.strip() for turn in asked):
        return Unusable(row, NO_QUESTION, text["id"])
    if not all(turn and turn.strip() for turn in answered):
        return Unusable(row, NO_ANSWER, text["id"])
    characters = sum(len(turn or "") for turn in (*asked, *answered))
    if characters > most_characters:
        return Unusable(row, TOO_LONG, f"{text['id']}: {characters:,} characters")
    questions, answers = ([turn or "" for turn in turns] for turns in (asked, answered))
    particulars = (text["language"], text["source"], text["licence"])
    return Conversation(row, text["id"], text["model"], questions, answers, *particulars)


def _cell(record: Mapping[str, Any], what: str) -> Any:
    return next((record[name] for name in COLUMNS[what] if record.get(name) is not None), None)
