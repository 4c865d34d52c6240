"""Prices of candidate plans: seconds on the target, and which are affordable.

Also the seconds left for a member that sees some rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ensemble.budget.pricing import Pricing
from ensemble.budget.schedule import Load, fits, makespan, overhead_seconds
from ensemble.plan import ROUNDING
from ensemble.search.subsets import Affordable, Subset
from zoo.errors import ZooError
from zoo.report.duration import format_seconds

LEAST_COVERAGE = 0.02  # of a member's work: less is not worth loading it


@dataclass(frozen=True)
class Budget:
    """What a plan may take: seconds in all, the margin on predicted seconds, and its reason."""

    seconds: float
    margin: float
    margin_reason: str

    @property
    def available(self) -> float:
        """Seconds without the margin: what the plan's own prediction may come to."""
        return self.seconds / self.margin


@dataclass(frozen=True)
class Prices:
    """Seconds of plans on the target, overhead included, without the margin.

    What a forecast's margin exceeds the target's by is in them: by these seconds plans fit or do not, and by those of `likely`
    they are told. Each whole-file set is priced once.
    """

    pricing: Pricing
    _whole_file: dict[Subset, float] = field(default_factory=dict)

    @property
    def overhead(self) -> float:
        """Seconds of a prediction beside its members."""
        return overhead_seconds(self.pricing.rows)

    @cached_property
    def likely(self) -> Prices:
        """The same without what forecasts' margins add: what a plan is predicted to take."""
        return Prices(self.pricing.likely) if (self.pricing.factors != 1).any() else self

    def seconds(self, whole: Subset, seen: Mapping[int, np.ndarray] | None = None) -> float:
        """Seconds of a plan: `whole` see every row, others the rows of their mask in `seen`."""
        if seen:
            return self.overhead + makespan(self.loads(whole, seen), self.pricing.devices)
        key = tuple(sorted(whole))
        if key not in self._whole_file:
            self._whole_file[key] = self.overhead + makespan(self.loads(key), self.pricing.devices)
        return self._whole_file[key]

    def seconds_with(self, whole: Subset, work: Mapping[int, float]) -> float:
        """The most seconds of a plan whose members of `work` do so many seconds after `whole`."""
        return self.seconds(whole) + sum(self._phase(j, seconds) for j, seconds in work.items())

    def loads(self, whole: Subset, seen: Mapping[int, np.ndarray] | None = None) -> list[Load]:
        """The jobs of a plan, before they are scheduled."""
        return self.pricing.loads(whole, list((seen or {}).items()))

    def affordable(self, available: float) -> Affordable:
        """Whether a whole-file plan of a set takes at most `available` seconds.

        Each set is looked at once.
        """
        room = (available - self.overhead) * (1 + ROUNDING)
        known: dict[Subset, bool] = {}

        def check(subset: Subset) -> bool:
            key = tuple(sorted(subset))
            if key not in known:
                known[key] = fits(self.loads(key), self.pricing.devices, room)
            return known[key]

        return check

    def whole_work(self, j: int) -> float:
        """Seconds of work of member j on every row of the file, over all its copies."""
        return float(self.pricing.row_seconds[j].sum())

    def gated_work(self, whole: Subset, j: int, available: float) -> float:
        """Seconds of work, over all copies, that member j may do after `whole`.

        0 where it is too little to be worth a load.
        """
        work = min(self._room(j, available - self.seconds(whole)), self.whole_work(j))
        return work if self._is_worth_a_load(j, work) else 0.0

    def shared_work(self, whole: Subset, first: int, seen: np.ndarray, j: int, available: float) -> dict[int, float]:
        """Seconds of work by member where a second gated member, j, joins a first one.

        Half of what `first` does on the rows `seen` goes to j. Empty where too little is left for j to be worth a load.
        """
        half = float(self.pricing.row_seconds[first] @ seen) / 2
        work = self.work_beside(whole, {first: half}, j, available)
        return {first: half, j: work} if work else {}

    def work_beside(self, whole: Subset, part: Mapping[int, float], j: int, available: float) -> float:
        """Seconds of work, over all copies, that member j may do after `whole` and `part`.

        `part`: seconds of work by member. 0 where it is too little to be worth a load.
        """
        left = available - self.overhead - makespan(self.loads(whole), self.pricing.devices)
        left -= sum(self._phase(k, seconds) for k, seconds in part.items())
        work = min(self._room(j, left), self.whole_work(j))
        return work if self._is_worth_a_load(j, work) else 0.0

    def on_rows(self, keep: np.ndarray) -> Prices:
        """The same prices by the labelled rows of `keep` (bool, rows).

        Their lengths stand for the file to be predicted.
        """
        return Prices(self.pricing.on_rows(keep))

    def _is_worth_a_load(self, j: int, work: float) -> bool:
        return work >= LEAST_COVERAGE * self.whole_work(j)

    def _phase(self, j: int, work: float) -> float:
        """Seconds of a phase of its own in which member j does so many seconds of work, over all copies."""
        return float(self.pricing.load_seconds[j]) + work / self._copies(j)

    def _room(self, j: int, seconds: float) -> float:
        """Seconds of work of member j, over all copies, that fit into a phase of its own."""
        return max(0.0, (seconds * (1 - ROUNDING) - float(self.pricing.load_seconds[j])) * self._copies(j))

    def _copies(self, j: int) -> int:
        return 1 if self.pricing.wide[j] else self.pricing.devices


def require_feasible(prices: Prices, budget: Budget) -> None:
    """ZooError with the cheapest plan and the budget that it needs, where nothing is affordable."""
    names = prices.pricing.names
    singles = {j: prices.seconds((j,)) for j in range(len(names))}
    cheapest = min(singles, key=lambda j: singles[j])
    if singles[cheapest] > budget.available * (1 + ROUNDING):
        needed = math.ceil(singles[cheapest] * budget.margin)
        raise ZooError(
            f"budget {format_seconds(budget.seconds)} is too small for {prices.pricing.rows} rows: the cheapest plan is "
            f"{names[cheapest]} alone and needs --budget {needed}s (margin {budget.margin:g} included)"
        )
