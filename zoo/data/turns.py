"""Cells as turns of a conversation: JSON lists, native lists, messages, or plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from zoo.data.columns import cell_text

Turns = Sequence[str | None]
SURROGATE = re.compile("[\ud800-\udfff]")
# Texts that begin so are meant as lists of texts; "[INST]" and "[1] a source" are not.
_LIST = re.compile(r"""\s*\[\s*(["'{\]]|null\b|None\b)""")
_SCALAR = (str, bytes, bool, int, float)
FEW_SHARE, FEW_CELLS, FEW_OF_SMALL = 0.01, 3, 0.1
ASKING, ANSWERING = ("user", "human", "system", "developer"), ("assistant", "gpt", "model", "chatbot")


def are_plain(columns: Sequence[Sequence[Any]]) -> list[bool | None]:
    """Which columns' cells are plain texts, each one turn, and not lists of turns.

    None where all cells are blank. Told over whole columns, so that one text that begins with a bracket stays a text, and one
    broken list a broken list. A column is plain where few of its cells look like lists: 1 %, or in a small file up to 3 cells
    of at least 30. With more, but less than half, it is plain too where no column of the file is of lists: models write JSON
    when they are asked to, while a column of broken lists stands beside whole ones. There, JSON lists of something else than
    turns say nothing. A number among texts is a text.
    """
    found = [_filled(cells) for cells in columns]
    lists = [[cell for cell in filled if _looks_like_list(cell)] for filled in found]
    has_lists = any(len(own) >= len(filled) / 2 for own, filled in zip(lists, found, strict=True) if filled)
    return [_is_plain(own, len(filled), has_lists) if filled else None for own, filled in zip(lists, found, strict=True)]


def _is_plain(lists: Sequence[Any], filled: int, has_lists: bool) -> bool:
    few = max(FEW_SHARE * filled, min(FEW_CELLS, FEW_OF_SMALL * filled))
    if len(lists) <= few or len(lists) >= filled / 2:
        return len(lists) <= few
    return not has_lists or sum(not (isinstance(cell, str) and _says_nothing(cell)) for cell in lists) <= few


def lists_among_texts(cells: Sequence[Any]) -> int:
    """How many of a plain column's cells could be meant as turns: JSON lists of texts and nulls."""
    return sum(
        _looks_like_list(cell) and not _says_nothing(cell) and _is_whole(cell) for cell in cells if isinstance(cell, str)
    )


def _filled(cells: Sequence[Any]) -> list[Any]:
    return [cell for cell in cells if cell is not None and cell == cell and not (isinstance(cell, str) and not cell.strip())]


def _looks_like_list(cell: Any) -> bool:
    return bool(_LIST.match(cell)) if isinstance(cell, str) else not isinstance(cell, _SCALAR)


def _is_whole(cell: str) -> bool:
    try:
        return isinstance(json.loads(cell, strict=False), list)
    except (ValueError, RecursionError):
        return False


def _says_nothing(cell: str) -> bool:
    """Whether a cell is a JSON list, but of other things than texts, nulls and messages."""
    try:
        items = json.loads(cell, strict=False)
    except (ValueError, RecursionError):
        return False
    turns = (item is None or isinstance(item, str) or (isinstance(item, dict) and "role" in item) for item in items)
    return not all(turns)


def turns_of(cell: Any, *, plain: bool, answer: bool = False) -> tuple[list[str | None], bool]:
    """Turns of one field, and whether lone surrogates were replaced.

    `answer`: where the cell is a list of messages, take the model's and not the user's. ValueError says what is wrong.
    """
    if plain:
        return _clean([cell_text(cell)])
    turns = _listed(cell)
    if any(isinstance(turn, dict) for turn in turns):
        questions, answers = _paired(turns)
        return _clean(answers if answer else questions)
    if not all(turn is None or isinstance(turn, str) for turn in turns):
        raise ValueError("a turn is neither text nor null")
    return _clean(turns)


def conversation_of(a: Any, b: Any) -> tuple[list[list[str | None]], bool]:
    """Prompt, response_a and response_b of two whole conversations.

    Also whether lone surrogates were replaced. ValueError says what is wrong.
    """
    (asked, answers_a), (asked_b, answers_b) = _paired(_listed(a)), _paired(_listed(b))
    if asked != asked_b:
        raise ValueError("the two conversations ask different things")
    found = [_clean(turns) for turns in (asked, answers_a, answers_b)]
    return [turns for turns, _ in found], any(cleaned for _, cleaned in found)


def questions_and_answers(cell: Any) -> tuple[list[str | None], list[str | None]]:
    """What is asked in a conversation and what is answered, turn by turn.

    The conversation is a list of messages or its JSON. None where a turn has no question or no answer; lone surrogates are
    replaced. ValueError says what is wrong.
    """
    asked, answered = _paired(_listed(cell))
    return _clean(asked)[0], _clean(answered)[0]


def _listed(cell: Any) -> list[Any]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell, strict=False)  # a raw line break or tab inside a text is harmless
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            quotes = "; single quotes are Python's, write it with json.dumps" if re.match(r"\s*\[\s*\{?\s*'", cell) else ""
            raise ValueError(f"undecodable JSON ({reason}): {cell[:40]!a}{quotes}") from None
        if not isinstance(cell, list):
            raise ValueError(f"JSON, but not a list: {json.dumps(cell)[:40]!a}")
    if not isinstance(cell, list):
        raise ValueError("blank" if cell is None or cell != cell else f"not a list: {str(cell)[:40]!a}")
    return cell


def _paired(messages: Sequence[Any]) -> tuple[list[str | None], list[str | None]]:
    """Questions and the answers to them, turn by turn: None where one has no other.

    Messages in a row of one side are one turn, so a system's message stands before the first question.
    """
    asked: list[str | None] = []
    answered: list[str | None] = []
    last = ""
    for message in messages:
        role, text = _message(message)
        side = "asking" if role in ASKING else "answering"
        own, other = (asked, answered) if side == "asking" else (answered, asked)
        if side == last and own and own[-1] is not None:
            own[-1] = f"{own[-1]}\n\n{text}"
        elif side == "answering" and last == "asking":
            own[-1] = text
        else:
            own.append(text)
            other.append(None)
        last = side
    return asked, answered


def _message(message: Any) -> tuple[str, str]:
    """Role and text of one message, whose content is a text or a list of parts."""
    if not isinstance(message, dict) or "role" not in message:
        raise ValueError("a message is no object with role and content")
    role, content = str(message["role"]).lower(), message.get("content")
    if role not in (*ASKING, *ANSWERING):
        raise ValueError(f"a message has the role {role[:20]!a}, which is neither the user's nor the model's")
    if content is None or isinstance(content, str):
        return role, content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else part.get("text") for part in parts if isinstance(part, str | dict)]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a message holds more than text (a picture or a file)")
    return role, "\n\n".join(str(text) for text in texts)


def _clean(turns: list[str | None]) -> tuple[list[str | None], bool]:
    if not any(turn and SURROGATE.search(turn) for turn in turns):
        return turns, False
    return [turn and SURROGATE.sub("�", turn) for turn in turns], True
