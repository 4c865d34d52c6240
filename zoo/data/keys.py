"""What makes prompts and battles the same, or nearly so, but for white space and case."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from zoo.data.near import near_places
from zoo.data.splits import normal_text

WHOLE_WITHIN = 20  # characters of a text that is looked for within others: shorter ones are in many by chance


def near_copies(texts: Iterable[str], others: Iterable[str]) -> set[str]:
    """Those of some texts that are near-copies of others, or hold one, or stand in one."""
    return set(copies_by_text(texts, others))


def copies_by_text(texts: Iterable[str], others: Iterable[str]) -> dict[str, set[str]]:
    """The others that each text is a near-copy of, holds, or stands in.

    Texts without any are left out. The latter are mostly what a system's message stands before, or "think step by step" behind:
    beside short questions these are so long that no similarity shows.
    """
    ordered, known = sorted(set(texts)), sorted(set(others))
    found: dict[str, set[str]] = defaultdict(set)
    for text, places in zip(ordered, near_places(ordered, known), strict=True):
        if places:
            found[text] |= {known[place] for place in places}
    for longer, within in _with_others_within(ordered, known):
        found[longer].add(within)
    for longer, within in _with_others_within(known, ordered):
        found[within].add(longer)
    return dict(found)


def _with_others_within(texts: Iterable[str], others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each text with those of some others that stand in it whole, from the beginning of a word to the end of one."""
    by_head: dict[str, list[str]] = defaultdict(list)  # so that a text is read once, however many are looked for
    for other in others:
        if len(other) >= WHOLE_WITHIN:
            by_head[other[:WHOLE_WITHIN]].append(other)
    for text in texts:
        for start in (match.start() for match in re.finditer(r"(?<!\S)\S", text)):
            for other in by_head.get(text[start : start + WHOLE_WITHIN], ()):
                after = start + len(other)
                if text.startswith(other, start) and other != text and text[after : after + 1] in ("", " "):
                    yield text, other


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
