"""Tokenizers for texts that strangers wrote: no added token can come of them.

Libraries split a text at a tokenizer's added tokens before anything else: special ones (`<|im_end|>`), and others that count as
ordinary (`<tool_call>`, `<image>`). Beyond that a model's own vocabulary may hold them as words or pieces that it finds by
itself. So here every one of them gets a name that no text has, in the list of added tokens as in the vocabulary; ids stay what
they are, and a text that holds `<tool_call>` becomes the pieces of its characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.models.tokenizer_file import MEND, read_tokenizer, tokenizer_of
from zoo.reading import parse_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NONCHARACTER = "\ufdd0"  # Unicode assigns it to nobody, for use inside a program; `without_names` takes it out of texts
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_BLANK = " \t\n\r\f\v\u2581"  # U+2581 is sentencepiece's space


def read_tokenizer_file(path: Path) -> dict[str, Any]:
    """The content of a tokenizer.json; ZooError where it is none."""
    content: dict[str, Any] = parse_json(read_tokenizer(path), path, mend=MEND)
    try:
        content["model"]["vocab"]
    except (KeyError, TypeError) as error:
        raise ZooError(f"{path}: not a tokenizer file, it has no vocabulary; {MEND}") from error
    return content


def plain_tokenizer(content: dict[str, Any], path: Path = Path("tokenizer.json")) -> Tokenizer:
    """The tokenizer of a tokenizer.json's content, from whose `encode` no added token comes.

    Three kinds stay. Runs of white space, which some tokenizers keep as added tokens (GPT-NeoX, Gemma), are no control tokens
    and what their models read between all words. A token of a single character, or of a byte (`<0x0A>`) that stands for what
    the vocabulary lacks, is that character. The unknown token comes of such characters alone.
    """
    renamed = _renamed(content)
    tokenizer: Tokenizer = tokenizer_of(json.dumps(renamed).encode(), path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # what is not renamed and special is encoded as the characters that it is
    moved = [token["content"] for token in renamed["added_tokens"] if tokenizer.token_to_id(token["content"]) != token["id"]]
    if moved:
        raise ZooError(
            f"{path}: {len(moved)} added tokens have other ids than it says; save the tokenizer again with a current "
            "version of `tokenizers`"
        )
    return tokenizer


def control_ids(content: dict[str, Any]) -> dict[int, str]:
    """Ids that no label may have, with their names: special tokens and the unknown one."""
    found = {token["id"]: token["content"] for token in content.get("added_tokens", []) if token["special"]}
    return found | unknown_token(content)


def unknown_token(content: dict[str, Any]) -> dict[int, str]:
    """The id and the name of what stands for characters that the vocabulary lacks.

    Empty where nothing does.
    """
    model = content["model"]
    if isinstance(model["vocab"], list):
        unknown = model.get("unk_id")
        return {} if unknown is None else {unknown: model["vocab"][unknown][0]}
    name = model.get("unk_token")
    return {model["vocab"][name]: name} if name in model["vocab"] else {}


def without_names(text: str) -> str:
    """A text in which no renamed token can stand: U+FDD0 becomes U+FFFD."""
    return text.replace(_NONCHARACTER, "\ufffd")


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    model = content["model"]
    added = content.get("added_tokens", [])
    worded = {token["content"] for token in added if token["content"].strip(_BLANK)}
    # What nothing else writes; called special below, so that `encode_special_tokens` leaves it to the model.
    kept = {name for name in worded if len(name) == 1 or (model.get("byte_fallback") and _BYTE.fullmatch(name))}
    names = {t["content"]: f"{_NONCHARACTER}{t['id']}{_NONCHARACTER}" for t in added if t["content"] in worded - kept}
    changed = dict(model)
    if isinstance(model["vocab"], list):
        changed["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        changed["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    if "merges" in model:
        changed["merges"] = list(_merges_without(model, names))
    if model.get("unk_token") in names:
        changed["unk_token"] = names[model["unk_token"]]
    tokens = [
        t | {"content": names.get(t["content"], t["content"]), "special": t["special"] or t["content"] in kept} for t in added
    ]
    return content | {"model": changed, "added_tokens": tokens}


def _merges_without(model: dict[str, Any], names: dict[str, str]) -> Iterable[Any]:
    """The merges of which none takes or makes a renamed token; older files write a pair as one text."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if not names.keys() & {left, right, left + right[prefix:]}:
            yield merge
