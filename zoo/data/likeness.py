"""How alike two sets of prompts are, and weights that make one like the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.data.languages import language_of_turns

LANGUAGE, LENGTH, TURNS, TOPIC = "language", "characters", "turns", "topic"
FEATURES = (LANGUAGE, LENGTH, TURNS, TOPIC)
OTHER = "other"
RARE = 0.01  # of the target: languages below it are one
LENGTH_BINS = 8  # each an eighth of the target
ROUNDS, SETTLED = 100, 1e-6


def features_of(prompts: Sequence[Sequence[str]], topics: np.ndarray) -> pd.DataFrame:
    """A row a prompt: its language, its characters, its turns as a word, its topic."""
    turns = [len(asked) for asked in prompts]
    return pd.DataFrame(
        {
            LANGUAGE: [language_of_turns(asked) for asked in prompts],
            LENGTH: [sum(map(len, asked)) for asked in prompts],
            TURNS: [str(n) if n < 3 else "3 or 4" if n < 5 else "5 or more" for n in turns],
            TOPIC: topics,
        }
    )


@dataclass(frozen=True)
class Bins:
    """What counts as the same language and length: as a target has them."""

    languages: tuple[str, ...]
    edges: tuple[float, ...]

    @classmethod
    def of(cls, target: pd.DataFrame) -> Bins:
        counts = Counter(target[LANGUAGE].tolist())
        own = tuple(sorted(name for name, count in counts.items() if count >= RARE * len(target)))
        quantiles = np.quantile(target[LENGTH], np.arange(1, LENGTH_BINS) / LENGTH_BINS)
        return cls(own, tuple(float(edge) for edge in np.unique(quantiles)))

    def apply(self, features: pd.DataFrame) -> pd.DataFrame:
        """Every feature as names of categories."""
        places = np.searchsorted(self.edges, features[LENGTH].to_numpy(), side="left")
        names = [self._length(place) for place in range(len(self.edges) + 1)]
        return pd.DataFrame(
            {
                LANGUAGE: features[LANGUAGE].where(features[LANGUAGE].isin(self.languages), OTHER),
                LENGTH: [names[place] for place in places],
                TURNS: features[TURNS],
                TOPIC: features[TOPIC].astype(str),
            }
        )

    def _length(self, place: int) -> str:
        if place == len(self.edges):
            return f"above {self.edges[-1]:.0f}"
        return f"to {self.edges[place]:.0f}"


def shares(categories: pd.Series, weights: np.ndarray | None = None) -> dict[str, float]:
    """The share of each category."""
    weights = np.ones(len(categories)) if weights is None else weights
    found: dict[str, float] = (pd.Series(weights, index=categories).groupby(level=0).sum() / weights.sum()).to_dict()
    return found


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Total variation of two tables of shares, 0 to 1.

    It is the share of the rows that would have to be others.
    """
    return 0.5 * sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other})


def raked(pool: pd.DataFrame, target: pd.DataFrame) -> np.ndarray:
    """Weights of the pool's rows under which every feature has the target's shares.

    float64, (rows,), summing to 1. Iterative proportional fitting of the margins (Deming and Stephan 1940), feature by feature
    and again until they settle. What of the target the pool lacks is left out; where margins contradict each other in the
    pool, the last rounds' are taken.
    """
    weights = np.full(len(pool), 1 / len(pool))
    margins = []
    for name in pool.columns:
        codes, names = pd.factorize(pool[name])
        wanted = shares(target[name])
        goal = np.array([wanted.get(category, 0.0) for category in names])
        if goal.sum() > 0:
            margins.append((codes, goal / goal.sum()))
    for _ in range(ROUNDS):
        before = weights
        for codes, goal in margins:
            held = np.bincount(codes, weights=weights, minlength=len(goal))
            factor = np.divide(goal, held, out=np.zeros_like(goal), where=held > 0)
            if (scaled := weights * factor[codes]).sum() > 0:
                weights = scaled / scaled.sum()
        if np.abs(weights - before).sum() < SETTLED:
            break
    return weights
