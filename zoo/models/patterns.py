"""Regular expressions of others, matched in a time that their authors cannot choose.

peft's `alpha_pattern` is one: Python's own matcher goes back over what it has read, so that `(a+)+b` keeps it busy for ages on
a name of forty letters. Here all places that a pattern can reach are followed at once (Thompson 1968, Regular expression search
algorithm, CACM 11 (6)): a step for each pair of a character of the pattern and one of the name. What is read: characters, `.`,
classes as `[0-9]` and `\\d` with `?`, `*` or `+` behind them, groups of alternatives with `?`, `^` and `$`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]
from typing import Any

MOST_CHARACTERS = 200  # of a pattern that is matched here
MOST_TRIED_CHARACTERS = 1000  # of one that another library matches
NAME_CHARACTERS = 64  # of a module's name in most models: in so many places a repeat can end
MOST_TRIES = NAME_CHARACTERS**4  # ways through a pattern that another library tries one by one
_CLASS = r"\[\^?(?:[\w.]|\w-\w|\\[dw.\-])+\]"
_ONE = re.compile(rf"{_CLASS}|\\[dDwW._\-]|[\w.\-]")  # what stands for one character
READ = f"names with '.', '*', '+', '?', [classes] and (either|or), of at most {MOST_CHARACTERS} characters"


@dataclass(frozen=True)
class Piece:
    """A part of a pattern: one character, a group of alternatives, or an end.

    `text`: what one character matches, or `^` or `$`; empty of a group. `often`: `?`, `*`, `+` or empty.
    """

    text: str
    ways: tuple[tuple[Piece, ...], ...]
    often: str


Ways = tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True)
class Pattern:
    """A regular expression that was read: its alternatives, each of pieces one after another."""

    ways: Ways

    def ends(self, name: str) -> bool:
        """Whether it matches a name, or what follows one of its dots, to the end.

        As peft.utils.get_pattern_key (0.21) has it.
        """
        starts = {0, *(place + 1 for place, character in enumerate(name) if character == ".")}
        return len(name) in _after(self.ways, name, starts)


def read_pattern(text: str) -> Pattern | None:
    """A regular expression; None where it is none, or has what is not read here."""
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        ways, end = _read(text, 0)
    except re.error:  # of a class that is none, as [z-a]
        return None
    return Pattern(ways) if end == len(text) else None


def _read(text: str, place: int) -> tuple[Ways, int]:
    """The alternatives from a place on, and where they end: at the text's end, or before what does not belong to them."""
    ways: list[tuple[Piece, ...]] = []
    pieces: list[Piece] = []
    while place < len(text):
        one, repeats = _ONE.match(text, place), "?*+"
        inner: Ways = ()
        if text[place] == "|":
            ways.append(tuple(pieces))
            pieces, place = [], place + 1
            continue
        if one:
            re.compile(one[0])
            shown, place = one[0], one.end()
        elif text[place] in "^$":
            shown, place, repeats = text[place], place + 1, ""
        elif text[place] == "(":
            inner, end = _read(text, place + (3 if text.startswith("(?:", place) else 1))
            if text[end : end + 1] != ")":
                break
            shown, place, repeats = "", end + 1, "?"
        else:
            break
        often = text[place : place + 1] if text[place : place + 1] in tuple(repeats) else ""
        pieces.append(Piece(shown, inner, often))
        place += len(often)
    return (*ways, tuple(pieces)), place


def _after(ways: Ways, name: str, places: set[int]) -> set[int]:
    """Where a pattern can end in a name that began at one of these places."""
    reached: set[int] = set()
    for pieces in ways:
        now = places
        for piece in pieces:
            now = _after_piece(piece, name, now)
        reached |= now
    return reached


def _after_piece(piece: Piece, name: str, places: set[int]) -> set[int]:
    if piece.text in ("^", "$"):
        return places & {0 if piece.text == "^" else len(name)}
    if not piece.text:
        return _after(piece.ways, name, places) | (places if piece.often else set())
    new = _next(piece.text, name, places)
    reached = new | (places if piece.often in ("?", "*") else set())
    while piece.often in ("*", "+") and new:
        new = _next(piece.text, name, new) - reached
        reached |= new
    return reached


def _next(one: str, name: str, places: set[int]) -> set[int]:
    return {place + 1 for place in places if place < len(name) and _is_one(one, name[place])}


@lru_cache(maxsize=1 << 14)
def _is_one(one: str, character: str) -> bool:
    return re.fullmatch(one, character) is not None


# --- what other libraries match with Python's own matcher ----------------------------------------------------------------


def is_quick(text: str) -> bool:
    """Whether a matcher that tries one way after another is done in time.

    Of all that Python reads, what looks ahead included; never with what is no expression, or refers to its own groups.
    """
    if len(text) > MOST_TRIED_CHARACTERS:
        return False
    try:
        re.compile(text)
        return _tries(_of_all(_parser.parse(text))) <= MOST_TRIES
    except (re.error, RecursionError, OverflowError):
        return False


# Ways through a part of an expression, and the most repeats without an end on one of them.
Tries = tuple[float, int]
ENDLESS: Tries = (math.inf, 0)


def _tries(found: Tries) -> float:
    """At most how many ways there are: repeats one after another end in places that rise, C(n + k - 1, k) of n."""
    ways, repeats = found
    return ways * math.comb(NAME_CHARACTERS + repeats - 1, repeats)


def _of_all(pieces: Any) -> Tries:
    found = [_of_piece(str(kind), inner) for kind, inner in pieces]
    return math.prod(ways for ways, _ in found), sum(repeats for _, repeats in found)


def _of_piece(kind: str, inner: Any) -> Tries:
    if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
        return 1, 0
    if kind in ("SUBPATTERN", "ATOMIC_GROUP"):
        return _of_all(inner[-1] if kind == "SUBPATTERN" else inner)
    if kind in ("ASSERT", "ASSERT_NOT"):  # it looks from each place anew
        return _tries(_of_all(inner[1])), 0
    if kind == "BRANCH":
        found = [_of_all(way) for way in inner[1]]
        return _of_words(inner[1]) or sum(ways for ways, _ in found), max(repeats for _, repeats in found)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, repeated = inner
        return _of_repeat(int(least), int(most), *_of_all(repeated))
    return ENDLESS


def _of_words(ways: Any) -> int:
    """How many alternatives fit one name: of words those that one begins with.

    0 where some are no words of ASCII: case alone would tell others apart.
    """
    words = []
    for way in ways:
        if not all(str(kind) == "LITERAL" and inner < 128 for kind, inner in way):
            return 0
        words.append("".join(chr(inner) for _, inner in way).lower())
    return max(sum(word.startswith(begin) for begin in words) for word in words)


def _of_repeat(least: int, most: int, ways: float, repeats: int) -> Tries:
    """Where one way fits each time, one for each number of times; else their power for each."""
    if (ways, repeats) == (1, 0):
        return (1, 1) if most - least >= NAME_CHARACTERS else (most - least + 1, 0)
    if most == 1:
        return ways + 1 - least, repeats
    if repeats or most * math.log2(ways) >= MOST_TRIES.bit_length():
        return ENDLESS
    return sum(ways**times for times in range(least, most + 1)), 0
