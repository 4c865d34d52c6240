"""Counts by reason of what a stage was given and did not use, with an example of each."""

from __future__ import annotations

from typing import Any

DETAIL_CHARACTERS = 120


class Tally:
    """How many of what were left out for which reason; the first of each is the example."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], str] = {}

    def add(self, what: str, reason: str, example: str = "", count: int = 1) -> None:
        """Count some more of `what` (conversations, prompts, pairs), and keep the first example."""
        if count:
            self._counts[what, reason] = self._counts.get((what, reason), 0) + count
            self._examples.setdefault((what, reason), example[:DETAIL_CHARACTERS])

    def records(self) -> list[dict[str, Any]]:
        """One record a reason, in the order in which reasons were met: what, reason, count, example."""
        return [
            {"what": what, "reason": reason, "count": count, "example": self._examples[what, reason]}
            for (what, reason), count in self._counts.items()
        ]
