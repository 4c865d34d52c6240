"""The spans of a prediction's job: its process, its load, and the pieces its rows came in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zoo.tracking.spans import Span, Value, begun

TALLY = "tally.json"  # of a score stage's folder, see zoo.stages.score.tally
LOAD = "load"


class JobTrace:
    """What of a job is traced, once for each time that it is started; before that, nothing."""

    def __init__(self, members: Sequence[str]) -> None:
        self._members = members
        self._span: Span | None = None
        self._folder: Path | None = None
        self._last: dict[str, float] = {}

    def started(self, now: float, folder: Path, **facts: Value) -> None:
        """A process was started for it, which works in `folder`."""
        self._span, self._folder = begun(", ".join(self._members), now, **facts), folder
        self._last = dict.fromkeys(self._members, now)

    def took(self, member: str, now: float, rows: int) -> None:
        """Rows of a member came, in a chunk."""
        if self._span is not None and rows:
            self._span.piece(_chunks(member), self._last[member], now, rows=rows)
            self._last[member] = now

    def event(self, name: str, now: float, **facts: Value) -> None:
        """Something happened to it."""
        if self._span is not None:
            self._span.event(name, now, **facts)

    def ended(self, now: float, error: str = "") -> None:
        """Its process has ended; `error` in a word or two where nobody had asked it to."""
        if self._span is None or self._folder is None:
            return
        self._span.end, self._span.error = now, error
        first = min((piece.end or now for piece in self._span.pieces()), default=now)
        seconds = load_seconds(self._folder)
        if 0 < seconds <= first - self._span.start:  # else the engine was not started this time
            ready = self._span.start + seconds
            for piece in self._span.pieces():
                piece.start = max(piece.start, ready)
            self._span.piece(LOAD, self._span.start, ready)
        self._span = None


def load_seconds(folder: Path) -> float:
    """Seconds until a score stage's engine had answered a row, by its own tally.

    0 where that is not known.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads((folder / TALLY).read_text())["load_seconds"])
    return 0.0


def _chunks(member: str) -> str:
    return f"{member}: chunks"
