"""Vote counts (`votes_a`, `votes_b`, `votes_tie`) as shares to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from zoo.data.battles import Battles
from zoo.data.columns import VOTES
from zoo.errors import ZooError

__all__ = ["VOTES", "unreadable_votes", "vote_shares", "votes_digest"]


def vote_shares(battles: Battles, ids: Sequence[str]) -> np.ndarray:
    """Shares of the votes for A, B and tie by row id, (rows, 3); NaN where a row has none.

    The battles were read with `keep=VOTES`; ZooError where their file has no such columns.
    """
    return _shares(battles).reindex(list(ids)).to_numpy(dtype=np.float64)


def unreadable_votes(battles: Battles) -> list[str]:
    """Ids of rows whose votes are neither blank nor counts, so that their label is learned from.

    The battles were read with `keep=VOTES`; a file without all of these columns has none.
    """
    if not set(VOTES) <= set(battles.kept):
        return []
    cells = battles.kept[list(VOTES)]
    filled = (cells.map(str.strip) != "").any(axis=1)
    counts = cells.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    counted = (counts >= 0).all(axis=1) & np.isfinite(counts).all(axis=1)
    return [str(row_id) for row_id in cells.index[filled & ~counted]]


def votes_digest(battles: Battles) -> str:
    """SHA-256 over the ids and vote shares of the rows that have them.

    The order of rows does not matter; battles are read with `keep=VOTES`. `zoo.data.battles.dataset_digest` leaves these
    columns out, so that a file with more votes is still the same battles.
    """
    rows = (hashlib.sha256(repr(row).encode()).digest() for row in _shares(battles).itertuples(name=None))
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def _shares(battles: Battles) -> pd.DataFrame:
    """Vote shares of the rows that have a vote, by row id."""
    if missing := [name for name in VOTES if name not in battles.kept]:
        needs = f"train.targets = 'votes' needs {', '.join(VOTES)} (train.extra_targets is for extra files alone)"
        raise ZooError(f"{battles.path}: has no column {', '.join(missing)}; {needs}")
    counts = battles.kept[list(VOTES)].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    total = counts.sum(axis=1, skipna=False)
    voted = (counts >= 0).all(axis=1) & (total > 0)
    shares: pd.DataFrame = counts[voted].div(total[voted], axis=0)
    return shares
