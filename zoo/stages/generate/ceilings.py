"""How far a request goes: to so many usable rows, to so many hours, or to its end.

Rows begin in an order that has nothing to do with what they ask, and none that began is given up, so that short answers are
not the ones that are kept. A ceiling of rows is met by the shortest run of rows, from the first on, that has as many usable
ones: which these are depends on the model's answers, and not on what ended first. After the hours nothing begins, and nothing
that would not end in them at the time that rows took so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path

from zoo.contracts import GenerateRequest
from zoo.data.logs import WHOLE
from zoo.stages.generate.answers import CHUNKS, earlier_folders
from zoo.stages.score.tally import load_tally
from zoo.store import fingerprint


@dataclass
class Reach:
    """Which conversations may begin.

    `usable_before` (rows,): of those known beforehand, usable ones before each row; none where no ceiling is. `seconds_left`:
    of all replicas until the hours are over, None where they have no ceiling.
    """

    accept: int | None = None
    usable_before: Sequence[int] = ()
    seconds_left: Callable[[], float] | None = None
    _usable: int = 0
    _begun: dict[int, float] = field(default_factory=dict)
    _took: list[float] = field(default_factory=list)
    _again: set[int] = field(default_factory=set)

    @property
    def in_order(self) -> bool:
        """Whether rows must begin in their order."""
        return self.accept is not None or self.seconds_left is not None

    def may_begin(self, row: int) -> bool:
        """Whether the next of the rows may begin: all before it have ended, or have begun."""
        if self.accept is not None and self.usable_before[row] + self._usable + len(self._begun) >= self.accept:
            return False
        if self.seconds_left is None or row in self._again:
            return True
        typical = sum(self._took) / len(self._took) if self._took else 0.0
        return self.seconds_left() > typical

    def begin(self, row: int) -> None:
        self._begun[row] = time.monotonic()

    def take_back(self, row: int) -> None:
        """It has to begin again, and may do so after the hours.

        Without it no row behind it would be reached.
        """
        self._begun.pop(row, None)
        self._again.add(row)

    def end(self, row: int, *, usable: bool) -> None:
        self._took.append(time.monotonic() - self._begun.pop(row))
        self._usable += usable


def usable_before(statuses: Sequence[str | None]) -> list[int]:
    """For each row how many before it are usable, by statuses that are known (None: not yet)."""
    return [0, *accumulate(is_usable(status) for status in statuses)][: len(statuses)]


def is_usable(status: str | None) -> bool:
    """Whether `zoo data mine` takes a row of that status."""
    return bool(status) and status in WHOLE


def rows_reached(statuses: Sequence[str | None], accept: int | None) -> int:
    """How many rows a request has come to.

    Those from the first on that have a status, as far as the ceiling of rows.
    """
    settled = list(takewhile(lambda status: status is not None, statuses))
    if accept is None:
        return len(settled)
    usable = accumulate(map(is_usable, settled))
    return min(len(settled), 1 + next((row for row, count in enumerate(usable) if count >= accept), len(settled)))


def spent_seconds(request: GenerateRequest, out_dir: Path) -> float:
    """Seconds of all replicas that a request has taken, whatever its ceilings.

    Loading included, and what requests took that differ by ceilings alone. Loads are those of the last start of each part. On
    a machine without a GPU they are seconds of its engine.
    """
    line = without_ceilings(request)
    folders = [folder for folder, other in earlier_folders(request, out_dir) if without_ceilings(other) == line]
    tallies = [load_tally(part) for folder in (out_dir, *folders) for part in sorted(folder.glob(f"{CHUNKS}/*/"))]
    return sum((tally.load_seconds + tally.run_seconds) * tally.replicas for tally in tallies)


def without_ceilings(request: GenerateRequest) -> str:
    """What is the same for requests that differ by their ceilings alone."""
    return fingerprint(request.model_copy(update={"accept": None, "gpu_hours": None}))
