"""Leases: claims on numbered pieces of work by files in a shared folder.

They lapse when their holder falls silent.
A claim is made by creating a file that nobody else can create as well, also over NFS: by a hard link (link(2)). Whoever takes
over from a holder that fell silent creates the next file of that piece, so that of two who try one fails. The clock is that of
the file server: a holder touches one file of its own, and ages are differences of such times.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from zoo.store.files import write_atomic

LEASES = "leases"  # folder of a piece of shared work: who has claimed which part
LAPSE_SECONDS = 60.0  # of silence, after which a holder counts as gone
TOUCH_SECONDS = 10.0
ALIVE = ".alive"  # ending of the file that a holder touches
NOBODY = "nobody"  # as a holder: it has no such file, so that the piece is free


def living(folder: Path, lapse_seconds: float = LAPSE_SECONDS) -> set[str]:
    """Holders that were not silent for so long, for who only looks: nothing is claimed."""
    now = folder / f".now-{secrets.token_hex(4)}"
    try:
        now.touch()
        oldest = now.stat().st_mtime - lapse_seconds
        now.unlink()
    except OSError:  # of somebody who may only read
        oldest = time.time() - lapse_seconds
    found = set()
    for beat in folder.glob(f"*{ALIVE}"):
        with suppress(OSError):
            if beat.stat().st_mtime >= oldest:
                found.add(beat.name.removesuffix(ALIVE))
    return found


def forget(folder: Path, begin: str) -> None:
    """Have all holders whose names begin so count as gone at once.

    Their processes are known to have ended.
    """
    for beat in folder.glob(f"{begin}*{ALIVE}"):
        beat.unlink(missing_ok=True)


class Leases:
    """The claims of one holder. `renew` is to be called every few seconds as long as it lives."""

    def __init__(self, folder: Path, holder: str, lapse_seconds: float = LAPSE_SECONDS) -> None:
        """`holder`: a name that no other one has, a requeued task's included."""
        self._folder, self._holder, self._lapse = folder, holder, lapse_seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._beat = folder / f"{holder}{ALIVE}"
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
        last, turn = self._last(number)
        if last == self._holder or (last and not self._is_silent(last)):
            return last == self._holder
        return self._take(self._told, number, turn)

    def holds(self, number: int) -> bool:
        """Whether the piece is still this holder's.

        While it was silent another may have taken it over.
        """
        return self._last(number)[0] == self._holder

    def release(self, number: int) -> None:
        """Give a piece of this holder's back, so that anybody may claim it at once."""
        last, turn = self._last(number)
        if last == self._holder:
            write_atomic(free := self._folder / f".{self._holder}.free", NOBODY)
            self._take(free, number, turn)
            free.unlink()

    def leave(self) -> None:
        """Say that this holder has ended: what it holds is free at once."""
        self._beat.unlink(missing_ok=True)

    def _last(self, number: int) -> tuple[str, int]:
        """Who claimed a piece last, empty where nobody has, and the turn of who comes next."""
        turn = 0
        while self._lease(number, turn).exists():
            turn += 1
        return (self._lease(number, turn - 1).read_text() if turn else ""), turn

    def _take(self, told: Path, number: int, turn: int) -> bool:
        try:
            os.link(told, self._lease(number, turn))
        except FileExistsError:  # another was faster
            return False
        return True

    def _lease(self, number: int, turn: int) -> Path:
        """The file of the `turn`-th holder of a piece."""
        return self._folder / f"{number}.{turn}"

    def _is_silent(self, holder: str) -> bool:
        # Opened, not only looked at: NFS then asks the server, while it may know the times of a file from a minute ago.
        with suppress(FileNotFoundError), (self._folder / f"{holder}{ALIVE}").open("rb") as beat:
            return self._now() - os.fstat(beat.fileno()).st_mtime > self._lapse
        return True

    def _now(self) -> float:
        self._beat.touch()
        self._touched = time.monotonic()
        return self._beat.stat().st_mtime
