"""A clock that a test controls, for what would else be decided by how busy a machine is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace


@dataclass
class Clock:
    """It stands still except while `passes()`; then every look at it takes `step` seconds, up to `until`."""

    passes: Callable[[], object] = lambda: False
    step: float = 1.0
    until: float = float("inf")
    seconds: float = 0.0

    def now(self) -> float:
        """Seconds on this clock."""
        if self.seconds < self.until and self.passes():
            self.seconds += self.step
        return self.seconds

    def as_module(self, **others: object) -> SimpleNamespace:
        """In place of the module `time` where a module under test looks at the clock; `others` are its other functions."""
        return SimpleNamespace(monotonic=self.now, perf_counter=self.now, **others)
