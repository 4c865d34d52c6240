"""Conversations as token ids, in a model's chat format."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.models.plain_text import control_ids, plain_tokenizer, read_tokenizer_file, without_names
from zoo.models.prompts import clean
from zoo.models.shapes import read_config
from zoo.models.tokenizer_file import open_tokenizer
from zoo.reading import read_json_object

Ids = Sequence[int]
Literals = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class Chat:
    """A tokenizer as models are talked to.

    `literals`: of the first answer, the second, ... the token ids of the pieces around the texts before it. `encode` turns
    users' texts into ids and never makes an added token of them; `decode` turns a model's ids into text without its control
    tokens. `stops`: tokens that end an answer.
    """

    literals: Literals
    encode: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[Sequence[Ids]], list[str]]
    stops: tuple[int, ...]


def load_chat(folder: Path, pieces: Sequence[Sequence[str]]) -> Chat:
    """The chat of a model folder; `pieces` as `zoo.entries.chat_format.chat_pieces` finds them.

    ZooError where the tokenizer cannot be opened.
    """
    path = folder / "tokenizer.json"
    tokenizer, content = open_tokenizer(path), read_tokenizer_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain = plain_tokenizer(content, path)
    literals = tuple(tuple(tuple(tokenizer.encode(p, add_special_tokens=False).ids) for p in around) for around in pieces)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in plain.encode_batch([without_names(clean(t)) for t in texts], add_special_tokens=False)]

    def decode(rows: Sequence[Ids]) -> list[str]:
        return list(tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True))

    return Chat(literals, encode, decode, stop_ids(folder, literals, content))


def stop_ids(folder: Path, literals: Literals, content: dict[str, Any]) -> tuple[int, ...]:
    """Tokens that end an answer.

    Those that the model's own files name, and the control token that follows an answer in its format.
    """
    found: list[int] = []
    named = folder / "generation_config.json"
    for settings in (read_config(folder), read_json_object(named, mend="copy it again") if named.exists() else {}):
        ends = settings.get("eos_token_id")
        found += [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]
    controls = control_ids(content)
    after = [around[2][0] for around in literals[1:2] if around[2]]
    return tuple(dict.fromkeys([*found, *(token for token in after if token in controls)]))


def context_ids(literals: Literals, asked: Sequence[Ids], answered: Sequence[Ids]) -> list[int]:
    """What a model reads before its next answer.

    That is everything asked so far, and its answers to all but the last of it.
    """
    around = literals[len(answered)]
    texts = [ids for pair in itertools.zip_longest(asked[: len(answered) + 1], answered, fillvalue=()) for ids in pair]
    ids = list(around[0])
    for text, literal in zip(texts, around[1:], strict=False):
        ids.extend(text)
        ids.extend(literal)
    return ids
