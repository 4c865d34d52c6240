"""Prompts: a battle becomes token ids, truncated to fit and in either response order.

Pure functions; the tokenizer comes as a `Codec`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.contracts import Keep, Order, PromptSpec, Variant, changed
from zoo.errors import ZooError
from zoo.models.bounded import ask, at
from zoo.models.encoders import folder_encoder
from zoo.models.plain_text import control_ids, plain_tokenizer, read_tokenizer_file, without_names
from zoo.models.tokenizer_file import TOKENIZER_SECONDS, open_tokenizer

FIELDS = ("prompt", "response_a", "response_b")
Turns = Sequence[str | None]
Fields = tuple[list[int], list[int], list[int]]  # token ids of prompt, response A, response B, uncut


@dataclass(frozen=True)
class Codec:
    """A tokenizer as this project uses it, tied to one prompt.

    `literals` are the token ids of the template's pieces around its three fields, in which special tokens count.
    `encode_text` turns texts of a battle into ids and never makes an added token of them (`zoo.models.plain_text`): an answer
    that quotes `<|im_end|>` must not end its turn, nor one that quotes `<tool_call>` call a tool. `label_ids`
    are the single tokens of the labels A, B and tie; an encoder has none, and 0, 1, 2 stand for its classes.
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

    ZooError where a label is not one token after the template; of an encoder, which is asked nothing after it, where the
    template does not begin with a special token, which most of its heads read.
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
    if folder_encoder(folder):
        check_first_token(literals[0], controls)
        return Codec(literals, fields, encode_text, (0, 1, 2))
    labels = tuple(_label_id(encode_literal, pieces[-1], label, controls) for label in spec.labels)
    if len(set(labels)) != 3:
        raise ZooError(f"prompt.labels {spec.labels} share a token with this tokenizer: {labels}; choose other labels")
    return Codec(literals, fields, encode_text, (labels[0], labels[1], labels[2]))


def check_first_token(literal: Sequence[int], controls: Mapping[int, str]) -> None:
    """ZooError where an encoder's template does not begin with a special token."""
    if not literal or literal[0] not in controls:
        known = ", ".join(repr(name) for name in list(controls.values())[:8])
        raise ZooError(
            "prompt.template: an encoder answers from its first token, and this is not a special one; begin the template with "
            f"'[CLS]', or as its tokenizer calls it (special there: {known})"
        )


def load_codecs(folder: Path, prompt: PromptSpec, variants: Sequence[Variant]) -> dict[Variant, Codec]:
    """The codec of each variant; those with one template share it.

    ZooError where a template's labels are other tokens than the prompt's: one engine answers for all, and the model has learned
    these.
    """
    own = load_codec(folder, prompt)
    found = {prompt.template: own}
    for variant in variants:
        spec = variant.prompt(prompt)
        codec = found.setdefault(spec.template, own if spec.template in found else load_codec(folder, spec))
        if codec.label_ids != own.label_ids:
            raise ZooError(
                f"{variant.slug}: after its template the labels are the tokens {codec.label_ids}, after prompt.template "
                f"{own.label_ids}; end both alike"
            )
        room(codec, spec)
    return {variant: found[variant.prompt(prompt).template] for variant in variants}


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


def room(codec: Codec, spec: PromptSpec) -> int:
    """Tokens that the template leaves to a battle. ZooError where that is less than one a field."""
    available = spec.max_tokens - sum(len(literal) for literal in codec.literals)
    if available < 3:
        raise ZooError(
            f"max_tokens {spec.max_tokens} leaves {available} tokens beside the template; "
            "raise max_tokens or shorten the template"
        )
    return available


def encode_battles(
    battles: Sequence[tuple[Turns, Turns, Turns]], codec: Codec, spec: PromptSpec, order: Order, max_tokens: int | None = None
) -> list[Encoded]:
    """Token ids of battles, at most `max_tokens` each (None: `spec.max_tokens`).

    Battles are (prompt, response_a, response_b) turns. With order `ba` the second answer stands in the template's first place;
    the caller swaps the labels back.
    """
    spec = spec if max_tokens is None else changed(spec, max_tokens=max_tokens)
    room(codec, spec)  # told before the first battle, also where there is none
    return [fit_fields(fields, codec, spec, order) for fields in encode_fields(battles, codec, spec)]


def encode_fields(battles: Sequence[tuple[Turns, Turns, Turns]], codec: Codec, spec: PromptSpec) -> list[Fields]:
    """Token ids of each battle's texts, uncut.

    Variants that differ in order, cap or template have them in common.
    """
    ids = codec.encode_text([join_turns(turns, spec) for battle in battles for turns in battle])
    return [(ids[i], ids[i + 1], ids[i + 2]) for i in range(0, len(ids), 3)]


def fit_fields(fields: Fields, codec: Codec, spec: PromptSpec, order: Order) -> Encoded:
    """A battle's texts in the template, cut to `spec.max_tokens`."""
    prompt, a, b = fields if order == "ab" else (fields[0], fields[2], fields[1])
    own = {"prompt": prompt, "response_a": a, "response_b": b}
    texts = [own[field] for field in codec.fields]
    shares = [spec.shares[FIELDS.index(field)] for field in codec.fields]
    kept = allot([len(text) for text in texts], shares, room(codec, spec))
    ids = list(codec.literals[0])
    for text, n, literal in zip(texts, kept, codec.literals[1:], strict=True):
        ids.extend(cut(text, n, spec.keep))
        ids.extend(literal)
    return Encoded(ids, sum(map(len, texts)) - sum(kept))


def cut(ids: list[int], n: int, keep: Keep) -> list[int]:
    """`n` of a field's tokens: its end, where the last turn is, or half from either end.

    The odd one is from the end.
    """
    head = n // 2 if keep == "both_ends" and n < len(ids) else 0
    return ids[:head] + ids[len(ids) - n + head :]
