"""What took how long in a build or a prediction, collected as it goes.

Plain spans in memory, without MLflow and without a file: `zoo.tracking.traces` logs what was kept of them. Where nothing is
recorded, every call does nothing. What there is of them is bounded: many short ones of a kind become fewer and longer ones, and
what was left out is counted. Attributes are names and numbers of this project's own, never texts of anybody's rows; an error
is its kind alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("zoo")
MOST_SPANS = 400  # of one recording; pieces come on top
MOST_PIECES = 32  # of one kind in one span
MOST_EVENTS = 50  # of one span
PIECES, LEFT_OUT = "pieces", "left_out"  # attributes: how many went into one, how many are not there

Value = str | int | float | bool


@dataclass
class Event:
    """Something that happened at a moment, in seconds on the recording's clock."""

    name: str
    at: float
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass
class Span:
    """A part of what is recorded, from `start` to `end` in seconds on the recording's clock.

    `error`: the kind of what ended it; empty where it ended well.
    """

    name: str
    start: float = 0.0
    end: float | None = None
    parent: Span | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    error: str = ""
    _pieces: dict[str, list[Span]] = field(default_factory=dict)
    _gate: threading.Lock = field(default_factory=threading.Lock)

    def event(self, name: str, at: float, **attributes: Value) -> None:
        """Note that something happened; of too many the first ones stay."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(Event(name, at, attributes))
        else:
            self.attributes["events_left_out"] = int(self.attributes.get("events_left_out", 0)) + 1

    def piece(self, name: str, start: float, end: float, *, most: int = MOST_PIECES, **counts: float) -> None:
        """One of many short parts of a kind, with what is counted in it.

        Of more than `most`, each two neighbours become one whose counts are their sums. Threads may call it.
        """
        with self._gate:
            pieces = self._pieces.setdefault(name, [])
            pieces.append(Span(name, start, end, self, {PIECES: 1, "seconds": end - start, **counts}))
            if len(pieces) > most:
                self._pieces[name] = [_joined(pieces[i : i + 2]) for i in range(0, len(pieces), 2)]

    def pieces(self) -> list[Span]:
        """What `piece` was told, in the order of its start."""
        return sorted((piece for pieces in self._pieces.values() for piece in pieces), key=lambda piece: piece.start)


class Recording:
    """The spans of one build or prediction, the first of which holds all others."""

    def __init__(self, name: str, clock: Callable[[], float], started: float) -> None:
        self.clock = clock
        self._zero = time.time_ns() - round(1e9 * clock())  # the clock's zero in nanoseconds since 1970
        self.root = Span(name, started)
        self._spans = [self.root]
        self._left_out = 0

    def add(self, name: str, start: float, end: float | None, parent: Span, attributes: dict[str, Value]) -> Span:
        """A span of a recording; one too many is counted, and goes nowhere."""
        span = Span(name, start, end, parent, attributes)
        if len(self._spans) < MOST_SPANS:
            self._spans.append(span)
        else:
            self._left_out += 1
        return span

    def finished(self) -> list[dict[str, Any]]:
        """The spans as plain data, parents first.

        Moments are nanoseconds since 1970, a parent is its place. What has not ended ends now. Nothing, with a line, where that
        fails: what is recorded is done, and must not fail by how it was watched.
        """
        try:
            return self._finished()
        except Exception as error:
            logger.warning("what took how long is not kept: %s", type(error).__name__)
            return []

    def _finished(self) -> list[dict[str, Any]]:
        now = self.clock()
        self.root.end = now if self.root.end is None else self.root.end
        self.root.attributes |= {LEFT_OUT: self._left_out} if self._left_out else {}
        spans = [each for span in self._spans for each in (span, *span.pieces())]
        places = {id(span): place for place, span in enumerate(spans)}
        return [self._plain(span, places, now) for span in spans]

    def _plain(self, span: Span, places: dict[int, int], now: float) -> dict[str, Any]:
        end = now if span.end is None else span.end
        return {
            "name": span.name,
            "start": self._at(span.start),
            "end": max(self._at(end), self._at(span.start)),
            "parent": None if span.parent is None else places[id(span.parent)],
            "attributes": {name: _rounded(value) for name, value in span.attributes.items()},
            "events": [
                {
                    "name": event.name,
                    "at": self._at(event.at),
                    "attributes": {name: _rounded(value) for name, value in event.attributes.items()},
                }
                for event in span.events
            ],
            "error": span.error,
        }

    def _at(self, seconds: float) -> int:
        return self._zero + round(1e9 * seconds)


_within: ContextVar[tuple[Recording, Span] | None] = ContextVar("recording", default=None)


@contextmanager
def recorded(name: str, *, clock: Callable[[], float] = time.monotonic, started: float | None = None) -> Iterator[Recording]:
    """Record the spans that the block opens; `started` on the clock, where it began before."""
    recording = Recording(name, clock, clock() if started is None else started)
    token = _within.set((recording, recording.root))
    try:
        yield recording
    finally:
        _within.reset(token)


@contextmanager
def span(name: str, **attributes: Value) -> Iterator[Span]:
    """A span as long as the block; the block may add attributes to it."""
    within = _within.get()
    if within is None:
        yield Span(name)
        return
    recording, parent = within
    opened = recording.add(name, recording.clock(), None, parent, dict(attributes))
    token = _within.set((recording, opened))
    try:
        yield opened
    except BaseException as error:
        opened.error = type(error).__name__
        raise
    finally:
        opened.end = recording.clock()
        _within.reset(token)


def begun(name: str, start: float, **attributes: Value) -> Span:
    """A span in the open one, whose end is set by whoever began it."""
    within = _within.get()
    if within is None:
        return Span(name, start)
    recording, parent = within
    return recording.add(name, start, None, parent, dict(attributes))


def open_span() -> Span:
    """The span that is open here; one that goes nowhere where nothing is recorded."""
    within = _within.get()
    return Span("") if within is None else within[1]


def _joined(pieces: list[Span]) -> Span:
    """Neighbours as one; a last one alone stays."""
    first = pieces[0]
    counts = {name: sum(float(piece.attributes[name]) for piece in pieces) for name in first.attributes}
    ends = [piece.end for piece in pieces if piece.end is not None]
    return Span(first.name, first.start, max(ends), first.parent, dict(counts))


def _rounded(value: Value) -> Value:
    """A number in six digits, whole ones as whole numbers; what is neither number nor text as text, which JSON takes."""
    if not isinstance(value, float):
        return value if isinstance(value, str | int | bool) else str(value)
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")
