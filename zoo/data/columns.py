"""Kinds of columns: where a battles file has its ids, texts and winners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TEXT_COLUMNS = ("prompt", "response_a", "response_b")
WINNER_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")  # in the order of contracts.LABELS
VOTES = ("votes_a", "votes_b", "votes_tie")  # in the order of contracts.LABELS; read where train.targets = "votes"
MODEL_COLUMNS = ("model_a", "model_b")
ID_COLUMNS = ("id", "question_id")  # the first of them that a file has
CONVERSATIONS = (("conversation_a", "conversation_b"), ("messages_a", "messages_b"))  # whole ones, prompt and answers
MESSAGES, WINNER, LANGUAGE, SCORED = "messages", "winner", "language", "scored"
KNOWN_COLUMNS = ("id", *MODEL_COLUMNS, *TEXT_COLUMNS, *WINNER_COLUMNS)
LOOKED_FOR = frozenset((*KNOWN_COLUMNS, *VOTES, *ID_COLUMNS, *sum(CONVERSATIONS, ()), MESSAGES, WINNER, LANGUAGE, SCORED))

COMPETITION, WSDM, ARENA, NAMED = "the competition's", "WSDM Cup's", "an arena export's", "prompt, two responses and winner"
# What `winner` may say, without case, blanks and marks; both answers being bad is a tie.
WINNERS = {
    **dict.fromkeys(("modela", "a", "responsea", "assistanta"), 0),
    **dict.fromkeys(("modelb", "b", "responseb", "assistantb"), 1),
    **dict.fromkeys(("tie", "draw", "tiebothbad", "bothbad", "botharebad", "bothgood", "botharegood", "neither"), 2),
}
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "0,0": 0, "1,0": 1, "false": 0, "true": 1}
UNLABELLED, TIE = -1, 2


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold a battle.

    `texts`: prompt and both responses, or two whole conversations. `winners`: three that are 0 or 1, one that names the winner,
    or none. `missing`: columns that a file of its kind must have and this one has not.
    """

    id: str
    texts: tuple[str, ...]
    winners: tuple[str, ...]
    missing: tuple[str, ...]
    header: tuple[str, ...]
    has_texts: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        return (self.id, *self.texts, *self.winners)

    @property
    def extra(self) -> tuple[str, ...]:
        """Columns that say nothing of a battle's texts or winner."""
        return tuple(name for name in self.header if name not in (*self.needed, *MODEL_COLUMNS))

    def kind(self, labels: Sequence[int]) -> str:
        """What kind of file it is, by its columns and labels.

        One whose `winner` names a tie is not WSDM Cup's, which has none.
        """
        if len(self.texts) == 2 or MESSAGES in self.texts:
            return ARENA
        if len(self.winners) == 3:
            return COMPETITION
        if TIE not in labels and ((self.winners and LANGUAGE in self.header) or SCORED in self.header):
            return WSDM
        return NAMED if self.winners else COMPETITION


def is_known(name: str) -> bool:
    """Whether a column is looked for, in whatever case."""
    return name.lower() in LOOKED_FOR


def usual_names(header: Sequence[str]) -> dict[str, str]:
    """Columns that are known but for their case: the usual name -> that of the file.

    Not where two columns of the file could be meant.
    """
    lower = [name.lower() for name in header]
    odd = [name for name, usual in zip(header, lower, strict=True) if name != usual and usual in LOOKED_FOR]
    return {name.lower(): name for name in odd if lower.count(name.lower()) == 1}


def columns_of(header: Sequence[str], *, need_texts: bool = True) -> Columns:
    """Where a file with this header has what.

    Without `need_texts` a file that lacks a text column is taken without its responses.
    """
    found = tuple(name for name in dict.fromkeys(header))
    row_id = next((name for name in ID_COLUMNS if name in found), ID_COLUMNS[0])
    whole = next((pair for pair in CONVERSATIONS if set(pair) <= set(found)), None)
    if set(TEXT_COLUMNS) <= set(found) or whole is None:
        prompt = MESSAGES if MESSAGES in found and TEXT_COLUMNS[0] not in found else TEXT_COLUMNS[0]
        wanted: tuple[str, ...] = (prompt, *TEXT_COLUMNS[1:])
    else:
        wanted = whole
    if any(name in found for name in WINNER_COLUMNS):
        winners: tuple[str, ...] = WINNER_COLUMNS
    else:
        winners = (WINNER,) if WINNER in found else ()
    has_texts = need_texts or set(wanted) <= set(found)
    if not has_texts:
        wanted = tuple(name for name in wanted[:1] if name in found)
    missing = tuple(name for name in (row_id, *wanted, *winners) if name not in found)
    return Columns(row_id, wanted, winners, missing, tuple(header), has_texts)


def cell_text(cell: Any) -> str:
    """A cell as text: None and NaN are empty, truth values as in JSON."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "surrogateescape")
    return str(cell)


def label_of(cells: Sequence[Any]) -> int:
    """The label, 0, 1 or 2 for A, B or tie; UNLABELLED where the cells say none.

    They are three of which one is 1, or one that names the winner.
    """
    texts = [cell_text(cell).strip().lower() for cell in cells]
    if len(texts) == 1:
        return WINNERS.get("".join(c for c in texts[0] if c not in " _-()"), UNLABELLED)
    values = [_TRUTH.get(text) for text in texts]
    return values.index(1) if None not in values and sum(v or 0 for v in values) == 1 else UNLABELLED


def ids_of(cells: Sequence[Any]) -> list[str]:
    """Ids as text, exactly as they stand in the file but for blanks at the ends.

    In formats that have numbers, floats are whole where all of them are: pandas makes floats of a column with a gap in it.
    """
    floats = [cell for cell in cells if isinstance(cell, float) and cell == cell]
    whole = all(cell.is_integer() and abs(cell) < 2**53 for cell in floats)
    return [str(int(cell)) if whole and isinstance(cell, float) and cell == cell else cell_text(cell).strip() for cell in cells]
