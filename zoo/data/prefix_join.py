"""Pairs of similar sets, without comparing every pair: prefix filtering.

Where the elements of all sets stand in one order, two sets with Jaccard similarity t have an element in common among the first
|x| - ceil(t |x|) + 1 of the larger one and the first |y| - ceil(2 t / (1 + t) |y|) + 1 of the other (Bayardo et al. 2007,
"Scaling up all pairs similarity search"; Xiao et al. 2008, PPJoin, lemma 1 and section 4.2). With the rarest elements first,
few others have any of them: sets that share what many have, and differ in what few have, never meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np


def candidates(sets: Sequence[np.ndarray], threshold: float) -> Iterator[tuple[int, np.ndarray]]:
    """For each set the others that may be similar to it, by number.

    Each pair of sets (arrays of distinct elements, none empty) whose Jaccard similarity is at least `threshold` comes once;
    others come too.
    """
    if not sets:
        return
    sizes = np.array([len(one) for one in sets], dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    elements, starts = _by_rarity([sets[number] for number in order])
    sizes = sizes[order]
    indexed, postings, filled = _empty_index(elements, starts, sizes, threshold)
    for rank, number in enumerate(order.tolist()):
        own = elements[starts[rank] : starts[rank + 1]]
        asked = own[: sizes[rank] - _least(threshold, int(sizes[rank])) + 1]
        counts = filled[asked]
        ends = np.cumsum(counts)
        if ends[-1]:
            places = np.arange(ends[-1]) + np.repeat(indexed[asked] - (ends - counts), counts)
            found = np.unique(postings[places])
            smallest = np.searchsorted(sizes, _least(threshold, int(sizes[rank])))
            found = found[np.searchsorted(found, smallest) :]
            if len(found):
                yield number, order[found]
        kept = own[: _kept(threshold, int(sizes[rank]))]
        postings[indexed[kept] + filled[kept]] = rank
        filled[kept] += 1


def _least(threshold: float, size: int) -> int:
    """Elements that a set and one similar to it have in common at least, and so the least size of the other.

    A hair lower than the product: rounding must not lose a pair at the threshold.
    """
    return max(1, math.ceil(threshold * size - 1e-9))


def _kept(threshold: float, size: int) -> int:
    """How many of a set's first elements are kept for sets that are as large or larger."""
    return size - _least(2 * threshold / (1 + threshold), size) + 1


def _by_rarity(sets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The sets' elements as numbers, the rarest first in each and the rarest 0, and where each set starts."""
    starts = np.cumsum([0, *map(len, sets)])
    _, numbers, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts), dtype=np.int32)
    elements = rank[numbers]
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        elements[start:end].sort()
    return elements, starts


def _empty_index(
    elements: np.ndarray, starts: np.ndarray, sizes: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for which sets have an element among those that are kept.

    Where each element's room starts, all rooms, and how much of each is filled.
    """
    kept = np.concatenate(
        [elements[start : start + _kept(threshold, size)] for start, size in zip(starts.tolist(), sizes.tolist(), strict=False)]
    )
    counts = np.bincount(kept, minlength=int(elements.max()) + 1)
    return np.cumsum(counts) - counts, np.empty(len(kept), dtype=np.int64), np.zeros(len(counts), dtype=np.int64)
