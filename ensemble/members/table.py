"""Members as one array: score tables with their cards, on common rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import Cost, ScoreCard, ScoreRequest

FOLDS = 5  # of the blend's own cross-validation


@dataclass(frozen=True)
class Table:
    """A score table on disk with its card and its artifact's fingerprint.

    `battles_path` is where its labelled battles were. `recipe`: what all folds of one way to make an entry share, by
    `zoo.store.lineage.recipe_of`; empty where that is not known.
    """

    path: Path
    card: ScoreCard
    frame: pd.DataFrame
    battles_path: Path | None
    fingerprint: str = ""
    recipe: str = ""

    @property
    def held_fold(self) -> int | None:
        """The fold that the checkpoint did not see; None where it is not one fold's."""
        request = self.card.request
        if isinstance(request, ScoreRequest) and request.selection.rows == "held_out":
            return request.held.fold
        return None

    @property
    def name(self) -> str:
        return self.card.member

    @property
    def which(self) -> str:
        """What tells it from others of its name.

        The artifact's fingerprint, or its folder where it is of no artifact.
        """
        return self.fingerprint or self.path.name


@dataclass(frozen=True)
class Members:
    """Candidates on common rows.

    `p` (members, rows, 3); `tokens` (members, rows), as each member reads the rows; `y` labels (rows,); `groups` (rows,), the
    same number for the same prompt; `folds` (rows,), 0 to FOLDS - 1, by group; `characters` (rows,) of prompt and responses.
    """

    names: tuple[str, ...]
    cards: tuple[ScoreCard, ...]
    fingerprints: tuple[str, ...]
    ids: tuple[str, ...]
    p: np.ndarray
    tokens: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    characters: np.ndarray
    digest: str
    lost_rows: int
    left_out: dict[str, str]

    @property
    def costs(self) -> tuple[Cost, ...]:
        return tuple(card.cost for card in self.cards)

    def subset(self, index: Sequence[int]) -> Members:
        """The members at `index`, in that order, on the same rows."""
        chosen = list(index)
        return replace(
            self,
            names=tuple(self.names[j] for j in chosen),
            cards=tuple(self.cards[j] for j in chosen),
            fingerprints=tuple(self.fingerprints[j] for j in chosen),
            p=self.p[chosen],
            tokens=self.tokens[chosen],
        )

    def rows(self, keep: np.ndarray) -> Members:
        """The same members on the rows of `keep` (bool, rows), with folds of their own."""
        index = np.flatnonzero(keep)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            p=self.p[:, index],
            tokens=self.tokens[:, index],
            y=self.y[index],
            groups=self.groups[index],
            folds=balanced_folds(self.groups[index]),
            characters=self.characters[index],
        )


def balanced_folds(groups: np.ndarray, n_folds: int = FOLDS) -> np.ndarray:
    """Folds (rows,) of about equally many groups.

    The hash of a group is not the one by which stages hold rows out.
    """
    unique, inverse = np.unique(groups, return_inverse=True)
    digests = [hashlib.blake2b(int(g).to_bytes(8, "little", signed=True), digest_size=8).digest() for g in unique]
    rank = np.empty(len(unique), dtype=np.int64)
    rank[np.array(sorted(range(len(unique)), key=lambda i: digests[i]), dtype=np.int64)] = np.arange(len(unique))
    folds: np.ndarray = (rank % n_folds)[inverse]
    return folds
