"""Leases: claims on numbered pieces of work by files in a shared folder.

They lapse when their holder falls silent.
A claim is made by creating a file that nobody else can create as well, also over NFS: by a hard link (link(2)). Whoever takes
over from a holder that fell silent creates the next file of that piece, so that of two who try one fails. The clock is that of
the file server: a holder touches one file of its own, and ages are differences of such times.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from zoo.store.files import write_atomic

LAPSE_SECONDS = 60.0  # of silence, after which a holder counts as gone
TOUCH_SECONDS = 10.0


class Leases:
    """The claims of one holder. `renew` is to be called every few seconds as long as it lives."""

    def __init__(self, folder: Path, holder: str, lapse_seconds: float = LAPSE_SECONDS) -> None:
        """`holder`: a name that no other one has, a requeued task's included."""
        self._folder, self._holder, self._lapse = folder, holder, lapse_seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._beat = folder / f"{holder}.alive"
        self._told = folder / f".{holder}"  # what claims are links to
        write_atomic(self._told, holder)
        self._touched = 0.0
        self.renew()

    def renew(self) -> None:
        """Say that the holder lives, if that is due."""
        if time.monotonic() - self._touched >= min(TOUCH_SECONDS, self._lapse / 4):
            self._beat.touch()
            self._touched = time.monotonic()

    def claim(self, number: int) -> bool:
        """Whether the piece is this holder's now.

        It was before, was nobody's, or its last holder fell silent.
        """
        turn = 0
        while (taken := self._lease(number, turn)).exists():
            turn += 1
        if turn:
            last = self._lease(number, turn - 1).read_text()
            if last == self._holder or not self._is_silent(last):
                return last == self._holder
        try:
            os.link(self._told, taken)
        except FileExistsError:  # another was faster
            return False
        return True

    def _lease(self, number: int, turn: int) -> Path:
        """The file of the `turn`-th holder of a piece."""
        return self._folder / f"{number}.{turn}"

    def _is_silent(self, holder: str) -> bool:
        # Opened, not only looked at: NFS then asks the server, while it may know the times of a file from a minute ago.
        with suppress(FileNotFoundError), (self._folder / f"{holder}.alive").open("rb") as beat:
            return self._now() - os.fstat(beat.fileno()).st_mtime > self._lapse
        return True

    def _now(self) -> float:
        self._beat.touch()
        self._touched = time.monotonic()
        return self._beat.stat().st_mtime
