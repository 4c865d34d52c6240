"""Prompts: a battle becomes token ids, truncated to fit and in either response order.

Pure functions; the tokenizer comes as a `Codec`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.contracts import Order, PromptSpec
from zoo.errors import ZooError
from zoo.models.bounded import ask, at
from zoo.models.plain_text import control_ids, plain_tokenizer, read_tokenizer_file, without_names
from zoo.models.tokenizer_file import TOKENIZER_SECONDS, open_tokenizer

FIELDS = ("prompt", "response_a", "response_b")
Turns = Sequence[str | None]


@dataclass(frozen=True)
class Codec:
    """A tokenizer as this project uses it, tied to one prompt.

    `literals` are the token ids of the template's pieces around its three fields, in which special tokens count.
    `encode_text` turns texts of a battle into ids and never makes an added token of them (`zoo.models.plain_text`): an answer
    that quotes `<|im_end|>` must not end its turn, nor one that quotes `<tool_call>` call a tool. `label_ids`
    are the single tokens of the labels A, B and tie.
    """

    literals: tuple[tuple[int, ...], ...]
    fields: tuple[str, ...]
    encode_text: Callable[[Sequence[str]], list[list[int]]]
    label_ids: tuple[int, int, int]


@dataclass(frozen=True)
class Encoded:
    """A battle as the model reads it. `n_truncated`: tokens of the battle that did not fit."""

    ids: list[int]
    n_truncated: int


def load_codec(folder: Path, spec: PromptSpec) -> Codec:
    """Codec of a model folder's tokenizer.json for a prompt.

    ZooError where a label is not one token after the template.
    """
    path = folder / "tokenizer.json"
    tokenizer, content = open_tokenizer(path), read_tokenizer_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain = plain_tokenizer(content, path)

    def encode_literal(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_text(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in plain.encode_batch([without_names(clean(t)) for t in texts], add_special_tokens=False)]

    pieces, fields = split_template(spec.template)
    literals = tuple(encode_literal(piece) for piece in pieces)
    controls = control_ids(content)
    labels = tuple(_label_id(encode_literal, pieces[-1], label, controls) for label in spec.labels)
    if len(set(labels)) != 3:
        raise ZooError(f"prompt.labels {spec.labels} share a token with this tokenizer: {labels}; choose other labels")
    return Codec(literals, fields, encode_text, (labels[0], labels[1], labels[2]))


def bounded_label_ids(folder: Path, spec: PromptSpec) -> tuple[int, ...]:
    """The label tokens of a prompt, by a tokenizer that nobody has used yet.

    It is opened in a child process within bounds.
    ZooError as `load_codec` says, and where the tokenizer cannot be opened.
    """
    arguments = {"folder": str(folder.absolute()), "prompt": spec.model_dump(mode="json")}
    return tuple(ask(f"{__name__}:label_ids", arguments, mend="copy the model's tokenizer.json again"))


def label_ids(folder: str, prompt: dict[str, Any]) -> tuple[int, int, int]:
    """What `bounded_label_ids` asks its child."""
    at(Path(folder) / "tokenizer.json", seconds=TOKENIZER_SECONDS)
    return load_codec(Path(folder), PromptSpec.model_validate(prompt)).label_ids


def _label_id(encode: Callable[[str], tuple[int, ...]], tail: str, label: str, controls: Mapping[int, str]) -> int:
    """The id of a label where it follows the template's last piece.

    ZooError where it is not exactly one token there, or one of `controls`: the unknown token stands for every other text that
    the vocabulary lacks too.
    """
    before, after = encode(tail), encode(tail + label)
    if len(after) != len(before) + 1 or after[:-1] != before:
        added = len(after) - len(before)
        raise ZooError(
            f"prompt.labels: {label!r} is not one token after the template ({added} more); end the template differently "
            "(with or without a space or newline) or choose another label"
        )
    if after[-1] in controls:
        raise ZooError(
            f"prompt.labels: {label!r} is the token {controls[after[-1]]!r} after the template, special or unknown; "
            "choose a label that is a plain word or letter"
        )
    return after[-1]


def split_template(template: str) -> tuple[list[str], tuple[str, ...]]:
    """Literal pieces and field names of a template, in order: n + 1 pieces around n fields."""
    parts = re.split(r"\{(prompt|response_a|response_b)\}", template)
    return parts[0::2], tuple(parts[1::2])


def clean(text: str) -> str:
    """Text that a tokenizer accepts: lone surrogates, which JSON can carry, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def join_turns(turns: Turns, spec: PromptSpec) -> str:
    """A field's turns as one text; null and blank turns are shown as `spec.empty_text`."""
    return spec.turn_separator.join(t if t and t.strip() else spec.empty_text for t in turns) or spec.empty_text


def allot(lengths: Sequence[int], shares: Sequence[float], available: int) -> list[int]:
    """Tokens that each field may keep.

    That is its share of `available`, and of what shorter fields leave over, by the same shares. Never more than a field's
    length, never more than `available` in all, and all of `available` is used when the fields hold more than that.
    """
    if available <= 0:
        return [0] * len(lengths)
    if sum(lengths) <= available:
        return list(lengths)
    keep = [0] * len(lengths)
    left, open_fields = available, [i for i in range(len(lengths)) if lengths[i] > 0]
    while open_fields:
        total = sum(shares[i] for i in open_fields)
        weight = {i: (shares[i] / total if total > 0 else 1 / len(open_fields)) for i in open_fields}
        satisfied = [i for i in open_fields if lengths[i] <= weight[i] * left]
        if not satisfied:
            for i in open_fields:
                keep[i] = int(weight[i] * left)
            rest = left - sum(keep[i] for i in open_fields)
            for i in reversed(open_fields):  # the last may lack a token of what rounding down left
                more = min(rest, lengths[i] - keep[i])
                keep[i], rest = keep[i] + more, rest - more
            break
        for i in satisfied:
            keep[i] = lengths[i]
            left -= lengths[i]
        open_fields = [i for i in open_fields if i not in satisfied]
    return keep


def encode_battles(
    battles: Sequence[tuple[Turns, Turns, Turns]], codec: Codec, spec: PromptSpec, order: Order, max_tokens: int | None = None
) -> list[Encoded]:
    """Token ids of battles, at most `max_tokens` each.

    Battles are (prompt, response_a, response_b) turns. With order `ba` the second answer stands in the template's first place;
    the caller swaps the labels back.
    """
    return assemble_battles(field_ids(battles, codec, spec), codec, spec, order, max_tokens)


def field_ids(battles: Sequence[tuple[Turns, Turns, Turns]], codec: Codec, spec: PromptSpec) -> list[list[list[int]]]:
    """Token ids of each battle's three fields, whole.

    They are the same for every order and cap that a battle is put together in; tokenizing is what takes the time.
    """
    encoded = codec.encode_text([join_turns(turns, spec) for battle in battles for turns in battle])
    return [encoded[3 * i : 3 * i + 3] for i in range(len(battles))]


def assemble_battles(
    fields: Sequence[Sequence[list[int]]], codec: Codec, spec: PromptSpec, order: Order, max_tokens: int | None = None
) -> list[Encoded]:
    """Battles of `field_ids` in one order, at most `max_tokens` each.

    The same as `encode_battles` gives.
    """
    cap = max_tokens or spec.max_tokens
    available = cap - sum(len(literal) for literal in codec.literals)
    if available < 3:
        raise ZooError(
            f"max_tokens {cap} leaves {available} tokens beside the template; raise max_tokens or shorten the template"
        )
    slots = (
        {"prompt": 0, "response_a": 1, "response_b": 2} if order == "ab" else {"prompt": 0, "response_a": 2, "response_b": 1}
    )
    places = [slots[field] for field in codec.fields]
    shares = [spec.shares[FIELDS.index(field)] for field in codec.fields]
    found = []
    for battle in fields:
        placed = [battle[place] for place in places]
        found.append(_assemble(placed, codec.literals, allot([len(field) for field in placed], shares, available)))
    return found


def _assemble(fields: list[list[int]], literals: tuple[tuple[int, ...], ...], keep: list[int]) -> Encoded:
    """Pieces and fields in turn; a field that is too long keeps its end, where the last turn is."""
    ids = list(literals[0])
    for field, n, literal in zip(fields, keep, literals[1:], strict=True):
        ids.extend(field[len(field) - n :])
        ids.extend(literal)
    return Encoded(ids, sum(len(f) for f in fields) - sum(keep))
