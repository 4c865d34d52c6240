"""Prompts of a file, for models to answer: what users ask, turn by turn, each prompt once.

A file has a column `prompt`, in any form that battles have it, or a conversation (`conversation`, `messages`, or the first of
an arena export's two), as logs in the shape of LMSYS-Chat-1M do, of which the user's turns are taken. A row that cannot be used
is counted by its reason and stops nothing; the second and later rows of one prompt are counted as copies.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.columns import cell_text
from zoo.data.formats import read_records
from zoo.data.turns import SURROGATE, are_plain, questions_and_answers, turns_of
from zoo.errors import ZooError

ASKED, CONVERSATIONS = "prompt", ("conversation", "messages", "conversations", "conversation_a")
LICENCES = ("licence", "license")
NAMES = (ASKED, *CONVERSATIONS, "source", *LICENCES)
MOST_CHARACTERS = 200_000  # of a prompt: some 50,000 tokens, more than any context that is asked for
MOST_TURNS = 32
# Why a row is not used.
NO_OBJECT, NO_PROMPT, NO_TEXT = "not a JSON object", "no prompt that can be read", "an empty prompt or turn"
TOO_LONG, TOO_MANY = f"more than {MOST_CHARACTERS:,} characters", f"more than {MOST_TURNS} turns"
COPY = "a copy of an earlier prompt"


@dataclass(frozen=True)
class Prompt:
    """What a user asks, turn by turn.

    `id` is its digest, by which answers of different models find each other.
    """

    id: str
    turns: tuple[str, ...]
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Prompts:
    """The usable prompts of a file in order.

    Beside them how many rows were left out by reason, and the first row of each.
    """

    path: Path
    prompts: tuple[Prompt, ...]
    rows: int
    left_out: Mapping[str, int]
    first: Mapping[str, str]

    @property
    def digest(self) -> str:
        """What the prompts are, wherever they lie and in whatever format."""
        each = (json.dumps([p.id, p.source, p.licence]) for p in self.prompts)
        return hashlib.sha256("\n".join(each).encode()).hexdigest()[:16]

    @property
    def told(self) -> str:
        """What was read, in a line."""
        line = f"{self.rows:,} rows, {len(self.prompts):,} prompts"
        if not self.left_out:
            return line
        each = (f"{count:,} {reason} (first: {self.first[reason]})" for reason, count in sorted(self.left_out.items()))
        return f"{line}; left out: {', '.join(each)}"


def prompt_id(turns: Sequence[str]) -> str:
    """The digest of what is asked, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(turns)).encode()).hexdigest()[:16]


def read_prompts(path: Path) -> Prompts:
    """The prompts of a file of any format that is read.

    ZooError where it cannot be read as a whole, or no row of it has a prompt.
    """
    if not path.is_file():
        raise ZooError(f"{path}: no such file; give a file with a column `prompt` or `conversation`")
    records = list(read_records(path, NAMES))
    # None: all are blank, and a blank text is no broken list.
    plain = are_plain([[r.get(ASKED) for _, r in records if isinstance(r, dict)]])[0] is not False
    found: dict[str, Prompt] = {}
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}
    for number, record in records:
        try:
            prompt = _prompt(record, plain=plain)
            if prompt.id in found:
                raise _Unusable(COPY)
            found[prompt.id] = prompt
        except _Unusable as reason:
            left_out[reason.why] += 1
            first.setdefault(reason.why, f"row {number}{reason.detail and f': {reason.detail[:80]}'}")
    if not found:
        why = "; ".join(f"{count} x {reason}, first {first[reason]}" for reason, count in left_out.items())
        raise ZooError(f"{path}: no prompts ({why or 'it is empty'}); give rows with `prompt` or `conversation`")
    return Prompts(path, tuple(found.values()), len(records), dict(left_out), first)


def choose(prompts: Sequence[Prompt], rows: int | None, seed: int) -> list[Prompt]:
    """At most so many of the prompts, in the file's order.

    It is a sample by hash: a larger one holds the smaller.
    """
    if rows is None or rows >= len(prompts):
        return list(prompts)
    kept = {p.id for p in by_chance(prompts, seed)[:rows]}
    return [p for p in prompts if p.id in kept]


def by_chance(prompts: Iterable[Prompt], seed: int) -> list[Prompt]:
    """Prompts in an order that has nothing to do with what they ask.

    It is the same whatever others are among them.
    """
    return sorted(prompts, key=lambda prompt: hashlib.sha256(f"{seed} {prompt.id}".encode()).digest())


class _Unusable(Exception):
    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why, self.detail = why, detail


def _prompt(record: Mapping[str, Any] | str, *, plain: bool) -> Prompt:
    if isinstance(record, str):
        raise _Unusable(NO_OBJECT, record)
    try:
        turns = asked_of(record, plain=plain)
    except ValueError as error:
        raise _Unusable(NO_PROMPT, str(error)) from error
    if not turns or not all(turn and turn.strip() for turn in turns):
        raise _Unusable(NO_TEXT)
    texts = tuple(turn or "" for turn in turns)
    if len(texts) > MOST_TURNS:
        raise _Unusable(TOO_MANY)
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise _Unusable(TOO_LONG)
    licence = next((record[name] for name in LICENCES if record.get(name) is not None), None)
    return Prompt(prompt_id(texts), texts, _particular(record.get("source")), _particular(licence))


def _particular(cell: Any) -> str:
    """A cell as it can be written to a file again."""
    return SURROGATE.sub("\ufffd", cell_text(cell)).strip()


def asked_of(record: Mapping[str, Any], *, plain: bool) -> list[str | None]:
    """What a record's user asks, turn by turn. ValueError says why that cannot be read.

    `plain`: whether texts under `prompt` are prompts and not lists of turns; what is a list there already is one all the same.
    """
    if (cell := record.get(ASKED)) is not None:
        return turns_of(cell, plain=plain and not isinstance(cell, list | dict))[0]
    for name in CONVERSATIONS:
        if record.get(name) is not None:
            return questions_and_answers(record[name])[0]
    raise ValueError(f"none of {ASKED}, {', '.join(CONVERSATIONS)}")
