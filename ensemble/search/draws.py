"""Who draws a plan from the space of a study: a trial of Optuna's, or a known plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ensemble.pools.blend import BlendSpec
from ensemble.search.problem import Candidate
from ensemble.search.space import NO, YES, Space, without_strength
from ensemble.search.subsets import Subset


@dataclass(frozen=True)
class OfTrial:
    """Draws of an Optuna trial."""

    trial: Any

    def option(self, name: str, options: Mapping[str, Subset], variants: Subset) -> Subset:
        return options[self.trial.suggest_categorical(name, list(options))]

    def takes(self, name: str, j: int, place: int) -> bool:
        return bool(self.trial.suggest_categorical(name, [NO, YES]) == YES)

    def share(self, name: str, room: float, low: float, high: float) -> float:
        return float(self.trial.suggest_float(name, low, high))

    def pool(self, name: str, pools: Mapping[str, BlendSpec]) -> str:
        return str(self.trial.suggest_categorical(name, list(pools)))

    def strength(self, name: str, low: float, high: float) -> float:
        return float(self.trial.suggest_float(name, low, high, log=True))


@dataclass(frozen=True)
class OfPlan:
    """Draws that make a known candidate; `noted`: the parameters that a trial must have for it."""

    candidate: Candidate
    noted: dict[str, str | float] = field(default_factory=dict)

    def option(self, name: str, options: Mapping[str, Subset], variants: Subset) -> Subset:
        wanted = tuple(sorted(set(self.candidate.whole) & set(variants)))
        text, option = next(
            ((text, option) for text, option in options.items() if option == wanted), next(iter(options.items()))
        )
        self.noted[name] = text
        return option

    def takes(self, name: str, j: int, place: int) -> bool:
        taken = list(self.candidate.work)[place : place + 1] == [j]
        self.noted[name] = YES if taken else NO
        return taken

    def share(self, name: str, room: float, low: float, high: float) -> float:
        return self._number(name, next(iter(self.candidate.work.values())) / room, low, high)

    def pool(self, name: str, pools: Mapping[str, BlendSpec]) -> str:
        kind = without_strength(self.candidate.spec)
        self.noted[name] = text = next(text for text, spec in pools.items() if spec == kind)
        return text

    def strength(self, name: str, low: float, high: float) -> float:
        return self._number(name, getattr(self.candidate.spec, name), low, high)

    def _number(self, name: str, value: float, low: float, high: float) -> float:
        self.noted[name] = number = min(max(value, low), high)
        return number


def parameters(space: Space, candidate: Candidate) -> dict[str, str | float] | None:
    """The parameters of a trial that draws this candidate; None where the space lacks it."""
    if without_strength(candidate.spec) not in space.pools.values():
        return None
    plan = OfPlan(candidate)
    drawn = space.draw(plan)
    return plan.noted if (set(drawn.whole), list(drawn.work)) == (set(candidate.whole), list(candidate.work)) else None
