"""Boosted trees as numbers: what they read of a row, and how they correct a blend.

A battle's loss is that of whether it is a tie, and that of its side where it is none. Each has trees of its own, which correct
the log-odds that the blend gives. Everything is seen from the side that the blend favours: its lead is above zero, and the
trees for the side say by how much more or less. So an exchange of A and B changes nothing that they see, and exchanges what
comes out, exactly. Where a bias between the positions was asked for, everything is seen from A's side instead.

Lengths are the characters (rows, 3) of a row's prompt, of answer A and of answer B; NaN in rows whose texts are not known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.plan import LENGTH_FEATURES, TREE_FEATURES, Tree, Trees
from ensemble.pools.coordinates import coordinates, lead_and_odds, triples_of

FLOOR = 1e-3  # of the uniform triple in each table, so that logs of exact zeros are no outliers
UNDECIDED = 1e-9  # a lead below it favours no side


def names_of(lengths: np.ndarray | None) -> tuple[str, ...]:
    """What trees read of a row beside its members' leads and pulls, with lengths or without."""
    return TREE_FEATURES if lengths is None else (*TREE_FEATURES, *LENGTH_FEATURES)


def rows_of(lengths: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """The lengths of some rows, a mask or numbers of them; None where none are known."""
    return None if lengths is None else lengths[rows]


def tree_features(
    p: np.ndarray, base: np.ndarray, lengths: np.ndarray | None = None, *, ties: bool, position_bias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What trees read of rows (rows, features), and from which side (rows,) they see them.

    The side is 1 for A, -1 for B, 0 where none is favoured. p (members, rows, 3); `base` (rows, 3), the blend that is
    corrected. The features are those of `names_of(lengths)`, then each member's lead, then each one's pull to a tie. Leads,
    that in length too, are those of the favoured side.
    """
    at = coordinates(p, FLOOR, ties=ties)
    lead, odds = lead_and_odds(base, ties=ties)
    side = np.ones(len(lead)) if position_bias else np.where(np.abs(lead) < UNDECIDED, 0.0, np.sign(lead))
    safe = np.maximum(p, 1e-15)
    entropy = -(safe * np.log(safe)).sum(axis=2).mean(axis=0)
    of_all = [lead * side, odds, entropy, at.leads.std(axis=1), at.pulls.std(axis=1)]  # TREE_FEATURES
    if lengths is not None:
        prompt, a, b = np.log1p(lengths).T
        of_all += [prompt, (a + b) / 2, (a - b) * side]  # LENGTH_FEATURES
    return np.column_stack([*of_all, at.leads * side[:, None], at.pulls]), side


def correct(trees: Trees, p: np.ndarray, base: np.ndarray, lengths: np.ndarray | None = None, *, ties: bool) -> np.ndarray:
    """Triples (rows, 3) of the corrected blend.

    Rows whose lengths trees read and nobody knows stay as `base` has them.
    """
    if not trees.read_lengths:
        return _corrected(trees, p, base, None, ties=ties)
    out = base.copy()
    if lengths is not None:
        known = np.flatnonzero(~np.isnan(lengths).any(axis=1))
        out[known] = _corrected(trees, p[:, known], base[known], lengths[known], ties=ties)
    return out


def _corrected(trees: Trees, p: np.ndarray, base: np.ndarray, lengths: np.ndarray | None, *, ties: bool) -> np.ndarray:
    x, side = tree_features(p, base, lengths, ties=ties, position_bias=trees.position_bias)
    lead, odds = lead_and_odds(base, ties=ties)
    return triples_of(lead + side * evaluate(trees.lead, x), odds + evaluate(trees.tie, x), ties=ties)


def evaluate(trees: Sequence[Tree], x: np.ndarray) -> np.ndarray:
    """The sum of the trees' values (rows,) for features x (rows, features)."""
    total = np.zeros(len(x))
    columns = np.ascontiguousarray(x.T)
    for tree in trees:
        total += _values(tree, columns)
    return total


def _values(tree: Tree, columns: np.ndarray) -> np.ndarray:
    """One tree's values: the rows of each node are parted between its children, the root first."""
    out = np.empty(columns.shape[1])
    if not tree.features:
        out[:] = tree.values[0]
        return out
    waiting = [(0, np.arange(columns.shape[1]))]
    while waiting:
        node, rows = waiting.pop()
        goes_left = columns[tree.features[node], rows] <= tree.thresholds[node]
        for child, some in ((tree.left[node], rows[goes_left]), (tree.right[node], rows[~goes_left])):
            if child < 0:
                out[some] = tree.values[~child]
            else:
                waiting.append((child, some))
    return out
