"""What makes prompts and battles the same, or nearly so.

That is whatever is not white space, case or invisible. Masks are stricter than folds: characters that are not seen (zero-width
spaces and joiners, variation selectors, marks of direction, controls) are taken out here, but count in `zoo.data.splits`,
whose rules deal files that are trained on already.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from zoo.data.near import near_places
from zoo.data.splits import normal_text

WHOLE_WITHIN = 20  # characters of a text that is looked for within others: shorter ones are in many by chance
SHORT_WITHIN = 8  # columns (a Chinese character has two) of a shorter one that is looked for as a first or last sentence
SENTENCE_ENDS = frozenset(".?!:;。？！：；…")
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, 16.0), and controls that are no white space.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"
)


def near_copies(texts: Iterable[str], others: Iterable[str]) -> set[str]:
    """Those of some texts that are near-copies of others, or hold one, or stand in one."""
    return set(copies_by_text(texts, others))


def copies_by_text(texts: Iterable[str], others: Iterable[str]) -> dict[str, set[str]]:
    """The others that each text is a near-copy of, holds, or stands in.

    Texts without any are left out. The latter are mostly what a system's message stands before, or "think step by step" behind:
    beside short questions these are so long that no similarity shows. A text below WHOLE_WITHIN characters counts as held by
    another only where it is a sentence of its own at that one's beginning or end.
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
    short = set[str]()
    for other in others:
        if len(other) >= WHOLE_WITHIN:
            by_head[other[:WHOLE_WITHIN]].append(other)
        elif _columns(other) >= SHORT_WITHIN:
            short.add(other)
    for text in texts:
        yield from ((text, other) for other in _outer_sentences(text) & short)
        for start in (match.start() for match in re.finditer(r"(?<!\S)\S", text)):
            for other in by_head.get(text[start : start + WHOLE_WITHIN], ()):
                after = start + len(other)
                if text.startswith(other, start) and other != text and text[after : after + 1] in ("", " "):
                    yield text, other


def _outer_sentences(text: str) -> set[str]:
    """What a longer text begins or ends with, up to or from the end of a sentence, below WHOLE_WITHIN characters."""
    found = set[str]()
    for length in range(1, min(WHOLE_WITHIN, len(text))):
        head, tail = text[:length], text[-length:]
        if head[-1] in SENTENCE_ENDS or text[length : length + 1] in SENTENCE_ENDS:
            found.add(head)
        if text[:-length].rstrip()[-1:] in SENTENCE_ENDS:
            found.add(tail)
    return found


def _columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def visible(text: str) -> str:
    """A text without the characters that nobody sees."""
    return _INVISIBLE.sub("", text)


def prompt_texts(turns: Iterable[str | None]) -> set[str]:
    """Each turn that holds text, and all of them joined, as folds compare them.

    See `zoo.data.splits.fold_of`; here without what nobody sees.
    """
    normal = [normal_text(visible(turn)) for turn in turns if turn]
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
    """Turns as one text.

    It is the same where white space, case, Unicode form and what nobody sees alone differ.
    """
    return "\0".join(normal_text(visible(turn or "")) for turn in turns)


def _ordered_keys(frame: Any) -> Iterator[tuple[str, str, str]]:
    for prompt, a, b in zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True):
        yield turns_key(prompt), turns_key(a), turns_key(b)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16]
