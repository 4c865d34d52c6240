"""The hours of a training (`train.max_hours`), all its runs counted: when to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.stages.train.data_parallel import Ranks, device_sum
from zoo.targets import process_age_seconds


class Hours:
    """Wall-clock time of a training, whatever its process does.

    `before_seconds`: what earlier runs took until the checkpoint that this one goes on from.
    """

    def __init__(self, max_hours: float | None, before_seconds: float, ranks: Ranks) -> None:
        self.most_seconds = None if max_hours is None else 3600 * max_hours
        self.before_seconds, self.ranks = before_seconds, ranks
        self._longest = {"step": 0.0, "evaluation": 0.0}

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Note how long a `step` or an `evaluation` takes.

        The longest of each is what the end needs.
        """
        started = time.monotonic()
        yield
        self._longest[what] = max(self._longest[what], time.monotonic() - started)

    def spent_seconds(self) -> float:
        return self.before_seconds + process_age_seconds()

    def over(self) -> bool:
        """Whether one more step and the evaluation that ends the training would pass the hours.

        Every process of a data-parallel training gets the same answer.
        """
        if self.most_seconds is None:
            return False
        late = self.spent_seconds() + sum(self._longest.values()) > self.most_seconds
        return late if self.ranks.count == 1 else bool(device_sum([float(late)], self.ranks)[0])
