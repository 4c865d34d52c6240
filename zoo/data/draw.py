"""Samples with unequal chances, a smaller one within a larger one.

Sequential Poisson sampling (Ohlsson 1998, Journal of Official Statistics 14:149): each item has a number from 0 to 1 for good,
by hash, and a sample of n are those of the n smallest quotients of number and weight. The chance of an item to be in it is
then min(1, c * weight) with c so that the chances sum to n, nearly: exactly if the sum were left to chance. Since numbers and
weights do not depend on n, a larger sample holds the smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def with_floor(weights: np.ndarray, floor: float) -> np.ndarray:
    """Weights (items,) that sum to 1, of which the share `floor` is the same for all.

    No item has less than `floor / items`: whatever the weights leave out can be drawn. All are equal where all weights are 0.
    """
    total = float(weights.sum())
    even = np.full(len(weights), 1 / len(weights))
    return even if total <= 0 else floor * even + (1 - floor) * weights / total


def inclusion_probabilities(weights: np.ndarray, rows: int) -> np.ndarray:
    """The chance of each item to be in a sample of `rows`: float64, (items,).

    They sum to min(rows, items). Proportional to the weights, which are above 0, where that is below 1.
    """
    if rows >= len(weights):
        return np.ones(len(weights))
    order = np.argsort(-weights, kind="stable")
    ordered = weights[order]
    rest = np.cumsum(ordered[::-1])[::-1]  # of each and those behind it
    sure = np.arange(len(weights))  # how many are certain
    certain = int(np.flatnonzero((rows - sure) * ordered <= rest)[0])  # the next is not: all before it are
    found = np.ones(len(weights))
    found[order[certain:]] = np.minimum(1.0, (rows - certain) * ordered[certain:] / rest[certain])
    return found


def drawn(names: Sequence[str], weights: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """The places of a sample: int64, (min(rows, items),).

    In the order in which a growing sample takes them. `names`: what an item's number is the hash of, with the seed.
    """
    numbers = np.array([_number(name, seed) for name in names])
    found: np.ndarray = np.argsort(numbers / weights, kind="stable")[:rows]
    return found


def _number(name: str, seed: int) -> float:
    """Above 0 and at most 1."""
    first = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    return (int.from_bytes(first, "big") + 1) / 2**64
