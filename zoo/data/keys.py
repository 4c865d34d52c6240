"""What makes prompts and battles the same, or nearly so, but for white space and case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from zoo.data.near import near_places
from zoo.data.splits import normal_text


def near_copies(texts: Iterable[str], others: Iterable[str]) -> set[str]:
    """Those of some texts that are near-copies of others."""
    ordered = sorted(set(texts))
    return {text for text, places in zip(ordered, near_places(ordered, sorted(set(others))), strict=True) if places}


def prompt_texts(turns: Iterable[str | None]) -> set[str]:
    """Each turn that holds text, and all of them joined, as folds compare them.

    See `zoo.data.splits.fold_of`.
    """
    normal = [normal_text(turn) for turn in turns if turn]
    return {text for text in (*normal, " ".join(normal)) if text}


def battle_keys(frame: Any) -> list[tuple[str, frozenset[str]]]:
    """What a battle is but for white space, case and the order of its responses."""
    return [(prompt, frozenset((a, b))) for prompt, a, b in ordered_keys(frame)]


def ordered_keys(frame: Any) -> list[tuple[str, str, str]]:
    """Prompt and responses of each battle as one text each, but for white space and case."""
    return list(_ordered_keys(frame))


def battle_digests(frame: Any) -> list[tuple[bytes, bytes, bytes]]:
    """Digests of the same three texts of each battle: equal where the texts are.

    For many battles, whose texts would fill the memory.
    """
    return [(_digest(prompt), _digest(a), _digest(b)) for prompt, a, b in _ordered_keys(frame)]


def turns_key(turns: Iterable[str | None]) -> str:
    """Turns as one text, the same where white space, case and Unicode form alone differ."""
    return "\0".join(normal_text(turn or "") for turn in turns)


def _ordered_keys(frame: Any) -> Iterator[tuple[str, str, str]]:
    for prompt, a, b in zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True):
        yield turns_key(prompt), turns_key(a), turns_key(b)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16]
