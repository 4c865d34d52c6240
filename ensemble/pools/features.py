"""Features by which two files are compared: lengths, scripts, what the members say.

None of them needs labels. A plan keeps their distributions on the rows that its numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.plan import RowSummary

_STEPS = 40
_QUANTILES = np.linspace(0, 1, _STEPS + 1)
# How a feature that is higher, or lower, in a file is called.
WORDS = {
    "characters": ("longer", "shorter"),
    "entropy": ("less sure", "surer"),
    "disagreement": ("members apart", "members closer"),
    "tie": ("more ties", "fewer ties"),
}


@dataclass(frozen=True)
class Distance:
    """How far a file's rows are from others in one feature.

    `ks`: the Kolmogorov-Smirnov distance, from 0 to 1; of scripts the total variation, which is the same idea for classes.
    `higher`: whether the file's are the higher ones; `noise`: what chance exceeds once in twenty, and the summary's
    coarseness.
    """

    feature: str
    ks: float
    higher: bool
    noise: float

    @property
    def words(self) -> str:
        word = WORDS[self.feature][0 if self.higher else 1] if self.feature in WORDS else "others"
        return f"{self.feature} {self.ks:.2f} ({word})" if self.ks > self.noise else f"{self.feature} {self.ks:.2f}"


def row_features(p: np.ndarray, characters: np.ndarray) -> dict[str, np.ndarray]:
    """Features (rows,) by name, of members' triples p (members, rows, 3) and characters.

    `entropy`: the mean of the members' own, in nats; `disagreement`: the mean divergence of a member from the mean of all, in
    nats (the generalised Jensen-Shannon divergence); `tie`: the mean p_tie. `characters` is left out where none is known.
    """
    mean = p.mean(axis=0)
    entropy = _entropy(p).mean(axis=0)
    features = {"entropy": entropy, "disagreement": np.maximum(_entropy(mean) - entropy, 0.0), "tie": mean[:, 2]}
    return ({"characters": characters} if characters.any() else {}) | features


def _entropy(p: np.ndarray) -> np.ndarray:
    entropy: np.ndarray = -(p * np.log(np.maximum(p, 1e-15))).sum(axis=-1)
    return entropy


def summary_of(features: Mapping[str, np.ndarray], scripts: Sequence[str] = ()) -> RowSummary:
    """The distributions of rows' features, and of their scripts where these are known."""
    rows = len(next(iter(features.values())))
    names, counts = np.unique(np.asarray(scripts, dtype=str), return_counts=True)
    return RowSummary(
        rows=rows,
        quantiles={name: tuple(np.quantile(values, _QUANTILES).tolist()) for name, values in features.items()},
        scripts={str(name): float(count / len(scripts)) for name, count in zip(names, counts, strict=True)},
    )


def distances(summary: RowSummary, features: Mapping[str, np.ndarray], scripts: Sequence[str] = ()) -> list[Distance]:
    """How far rows are from summarised ones in every feature that both have, the farthest first."""
    rows = len(next(iter(features.values())))
    chance = 1.36 * float(np.sqrt(1 / rows + 1 / summary.rows))  # the 95 % point of the two-sample statistic (Smirnov 1939)
    noise = chance + 1 / _STEPS
    found = [
        _apart(name, summary.quantiles[name], values, noise) for name, values in features.items() if name in summary.quantiles
    ]
    if summary.scripts and len(scripts):
        names, counts = np.unique(np.asarray(scripts, dtype=str), return_counts=True)
        shares = dict(zip(names.tolist(), (counts / len(scripts)).tolist(), strict=True))
        either = summary.scripts.keys() | shares.keys()
        apart = sum(abs(summary.scripts.get(name, 0.0) - shares.get(name, 0.0)) for name in either) / 2
        found.append(Distance("script", apart, True, noise))
    return sorted(found, key=lambda one: -one.ks)


def _apart(name: str, quantiles: Sequence[float], values: np.ndarray, noise: float) -> Distance:
    """The two distribution functions' largest difference, at the quantiles' places.

    Between two of these the summarised one is not known; the distance is too small by one step of the shares at most.
    """
    places, shares = np.asarray(quantiles), np.linspace(0, 1, len(quantiles))
    ordered = np.sort(values)
    # At a value that occurs often the function jumps: it is looked at from both sides.
    below = np.searchsorted(ordered, places, side="left") / len(values) - _step(places, shares, "left")
    upto = np.searchsorted(ordered, places, side="right") / len(values) - _step(places, shares, "right")
    apart = np.concatenate([below, upto])
    far = float(apart[np.abs(apart).argmax()])
    return Distance(name, abs(far), far < 0, noise)


def _step(places: np.ndarray, shares: np.ndarray, side: str) -> np.ndarray:
    """The summarised distribution function at its own places: of equal ones the first (left) or the last share."""
    at = np.searchsorted(places, places, side="left") if side == "left" else np.searchsorted(places, places, side="right") - 1
    step: np.ndarray = shares[at]
    return step
