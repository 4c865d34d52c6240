"""Greedy ensemble selection: weights by counts of members that are taken again and again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GREEDY_ROUNDS = 25  # TabRepo (Salinas, Erickson 2024, arXiv 2311.02971) found nothing beyond it


def greedy_weights(
    p: np.ndarray,
    y: np.ndarray,
    rounds: int = GREEDY_ROUNDS,
    *,
    fits: Callable[[tuple[int, ...]], bool] = lambda _: True,
) -> np.ndarray:
    """Weights (members,) by ensemble selection with replacement (Caruana et al. 2004).

    Of the tables p (members, rows, 3) each round adds the one that lowers the log loss of the labels y (rows,) most, among
    those that `fits` allows beside what is taken already: a sorted tuple of places. ValueError where it allows none alone.
    """
    true = np.maximum(p[:, np.arange(len(y)), y], 1e-15)
    counts, total = np.zeros(len(p)), np.zeros(len(y))
    for _ in range(rounds):
        taken = set(np.flatnonzero(counts).tolist())
        allowed = [j for j in range(len(p)) if j in taken or fits(tuple(sorted({*taken, j})))]
        if not allowed:
            raise ValueError("greedy_weights: no member fits, not even alone")
        best = allowed[int(np.log(total + true[allowed]).mean(axis=1).argmax())]
        counts[best] += 1
        total += true[best]
    weights: np.ndarray = counts / counts.sum()
    return weights
