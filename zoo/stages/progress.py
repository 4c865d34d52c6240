"""Progress bars and notes of a stage, kept apart from libraries' output."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from zoo.errors import printable

LINE_SECONDS = 10.0  # between two lines where no terminal shows a bar
LIVE_SECONDS = 5.0  # between two looks of whoever shows a running stage elsewhere
_terminal: TextIO = sys.stderr
_live: TextIO | None = None


def use_terminal(descriptor: int) -> None:
    """From now on progress goes to this file descriptor."""
    global _terminal
    _terminal = io.TextIOWrapper(os.fdopen(descriptor, "wb", 0), write_through=True, errors="replace")


def use_live(path: Path) -> None:
    """From now on points, bars and notes are told to a file of JSON lines too.

    Whoever follows the stage as it runs reads it.
    """
    global _live
    _live = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644), "w", buffering=1)


def point(name: str, step: int, value: float) -> None:
    """A point of a curve as it comes about."""
    _tell(name=name, step=step, value=value, time=round(time.time(), 3))


def _tell(**said: Any) -> None:
    global _live
    if _live is None:
        return
    try:
        print(json.dumps(said), file=_live)
    except OSError:  # a full disk ends the telling, not the stage
        _live = None


def terminal() -> TextIO:
    """Where progress goes, for a process that shows some in this one's place."""
    return _terminal


def note(text: str) -> None:
    """One line, for a step whose length is not known beforehand."""
    print(f"  {printable(text)}", file=_terminal, flush=True)
    _tell(note=text)


class Lines(io.TextIOBase):
    """What tqdm writes over and over in one line, as lines of their own, for a pipe or a log."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._last = file, ""

    def write(self, text: str) -> int:
        line = text.strip("\r\n").rstrip()
        if line and line != self._last:  # it clears the line with spaces, and says its last state twice
            self._last = line
            print(line, file=self._file, flush=True)
        return len(text)


def bar(total: int | None, description: str, unit: str, *, initial: int = 0, **options: Any) -> Any:
    """A tqdm bar; where there is no terminal, a line every ten seconds.

    How much of what is done, how fast, time left.
    """
    if _terminal.isatty():
        look: dict[str, Any] = {"file": _terminal, "mininterval": 0.2, "dynamic_ncols": True}
    else:
        line = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left{postfix}"
        look = {"file": Lines(_terminal), "mininterval": LINE_SECONDS, "bar_format": line}
    return _told_bar()(total=total, desc=f"  {description}", unit=unit, initial=initial, **look, **options)


@functools.cache
def _told_bar() -> Any:
    """The class of bars that also tell how far they are: tqdm is loaded when the first one is shown."""
    from tqdm import tqdm

    class Bar(tqdm):
        _told = -LIVE_SECONDS

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if _live is not None and time.monotonic() - self._told >= LIVE_SECONDS:
                self._told = time.monotonic()
                of = f" of {self.total:,}" if self.total else ""
                description = self.desc.strip(" :")
                bar = {"description": description, "done": self.n, "total": self.total, "unit": self.unit}
                # Time first: MLflow shows some thirty characters of a tag.
                told = f"{self._left()}{description}: {self.n:,}{of} {self.unit}s"
                _tell(progress=told, bar=bar, more=str(self.postfix or ""))
            return shown

        def _left(self) -> str:
            """Time left at the speed so far, where that is known."""
            facts, done = self.format_dict, self.n - self.initial
            rate = facts["rate"] or (done / facts["elapsed"] if done > 0 and facts["elapsed"] else 0)
            return f"{self.format_interval((self.total - self.n) / rate)} left, " if self.total and rate else ""

    return Bar


class TokenBar:
    """A bar over tokens, which time goes by, not rows: the longest come first.

    Shows rows, rows/s, tokens/s and time left.
    """

    def __init__(self, tokens: int, rows: int) -> None:
        self._tokens, self._rows, self._done = tokens, rows, 0
        self._bar: Any = None

    def __enter__(self) -> TokenBar:
        self._bar = bar(self._tokens, "score", "token", unit_scale=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self) -> None:
        """The clock starts now: what came before was loading."""
        self._bar.unpause()
        self._bar.reset(self._tokens)
        self._done = 0

    def update(self, rows: int, tokens: int) -> None:
        """So many rows more, of so many tokens, are done.

        A chunk that an engine did not finish is counted again.
        """
        self._done = min(self._rows, self._done + rows)
        elapsed = max(self._bar.format_dict["elapsed"], 1e-6)
        self._bar.set_postfix_str(f"{self._done:,} of {self._rows:,} rows, {self._done / elapsed:.1f} row/s", refresh=False)
        self._bar.update(min(tokens, self._tokens - self._bar.n))


class AnswerBar:
    """A bar over answers, with tokens a second: how long each will be, nobody knows."""

    def __init__(self, answers: int) -> None:
        self._answers, self._tokens = answers, 0
        self._bar: Any = None

    def __enter__(self) -> AnswerBar:
        self._bar = bar(self._answers, "generate", "answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self) -> None:
        """The clock starts now: what came before was loading."""
        self._bar.unpause()
        self._bar.reset(self._answers)

    def update(self, answers: int, tokens: int) -> None:
        """So many answers more, of so many tokens, are done."""
        self._tokens += tokens
        elapsed = max(self._bar.format_dict["elapsed"], 1e-6)
        self._bar.set_postfix_str(f"{self._tokens / elapsed:,.0f} token/s", refresh=False)
        self._bar.update(answers)
