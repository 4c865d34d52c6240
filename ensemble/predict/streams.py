"""Terminals and pipes that cannot hold a prediction up.

A thread writes to them, and only that thread may stall. A pipe that nobody reads, a terminal that was stopped by Ctrl-S, one
that is gone: what cannot be written is dropped.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

MOST_WAITING = 2000  # pieces of text; a stream that is further behind has stalled, and loses what comes
LAST_WORDS_SECONDS = 0.1  # that the watchdog gives a stream: it acts 0.3 s before the budget's end
PATIENCE_SECONDS = 0.3  # at the end, for a stream that takes nothing any more


class Unblocked(io.TextIOBase):
    """A text stream to a file descriptor: `write` never waits and never fails."""

    def __init__(self, original: TextIO) -> None:
        self._descriptor = original.fileno()
        self._is_terminal = original.isatty()
        self._encoding = original.encoding or "utf-8"
        self._waiting: deque[bytes] = deque()
        self._news = threading.Event()
        self._broken = False
        self._ended = False
        self._written = 0
        threading.Thread(target=self._work, name=f"stream {self._descriptor}", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As that of the stream in whose place it stands."""
        return self._encoding

    def write(self, text: str, /) -> int:
        """Hand over a piece of text; dropped where the stream has stalled or is gone."""
        if not self._broken and len(self._waiting) < MOST_WAITING:
            self._waiting.append(text.encode(self._encoding, "backslashreplace"))
            self._news.set()
        return len(text)

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        return self._descriptor

    def drain(self, seconds: float) -> None:
        """Wait until all is written, as long as something is, and never longer than `seconds`."""
        until, seen, since = time.monotonic() + seconds, self._written, time.monotonic()
        while self._waiting and not self._broken and (now := time.monotonic()) < until and now - since < PATIENCE_SECONDS:
            time.sleep(0.005)
            if self._written != seen:
                seen, since = self._written, now

    def end(self) -> None:
        """Let the thread end once it has written what waits."""
        self._ended = True
        self._news.set()

    def _work(self) -> None:
        while not (self._ended and not self._waiting):
            self._news.wait()
            self._news.clear()
            while self._waiting:
                if not self._write_all(self._waiting[0]):
                    self._broken = True
                    self._waiting.clear()
                    return
                self._waiting.popleft()

    def _write_all(self, piece: bytes) -> bool:
        """Write a piece, however long that takes; whether the stream took it."""
        while piece:
            try:
                taken = os.write(self._descriptor, piece)
            except BlockingIOError:  # whoever shares this descriptor has made it so
                time.sleep(0.01)
                continue
            except OSError:
                return False
            piece = piece[taken:]
            self._written += taken
        return True


@contextmanager
def unblocked() -> Iterator[None]:
    """Let nothing that is written to sys.stdout or sys.stderr wait for their other end.

    Nor raise, when it is gone. Progress, warnings of libraries and the last lines alike. In a program from the background a
    terminal would stop the whole process for writing (`stty tostop`): that signal is ignored. At the block's end, what is not
    written after a moment is lost.
    """
    before = sys.stdout, sys.stderr
    put: list[Unblocked] = []
    for name in ("stdout", "stderr"):
        with suppress(OSError, AttributeError, ValueError):  # closed, or in memory: it cannot stall
            if not isinstance(getattr(sys, name), Unblocked):
                getattr(sys, name).flush()
                put.append(Unblocked(getattr(sys, name)))
                setattr(sys, name, put[-1])
    in_main = threading.current_thread() is threading.main_thread()
    stopping = signal.signal(signal.SIGTTOU, signal.SIG_IGN) if in_main and put else None
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in put:
            stream.drain(PATIENCE_SECONDS)
            stream.end()
        if stopping is not None:
            signal.signal(signal.SIGTTOU, stopping)


def drain(seconds: float) -> None:
    """Let sys.stdout and sys.stderr write what they still hold, where they are unblocked.

    At most so long.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Unblocked):
            stream.drain(seconds)
