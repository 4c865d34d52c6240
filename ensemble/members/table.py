"""Members as one array: score tables with their cards, on common rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ensemble.plan import Triple
from zoo.contracts import Cost, ScoreCard
from zoo.scores.metrics import uniform_loss

FOLDS = 5  # of the blend's own cross-validation


@dataclass(frozen=True)
class Members:
    """Candidates on common rows.

    `p` (members, rows, 3); `tokens` (members, rows), as each member reads the rows; `y` labels (rows,); `groups` (rows,), the
    same number for the same prompt; `folds` (rows,), 0 to FOLDS - 1, by group; `lengths` (rows, 3), characters of the prompt,
    of response A and of response B; None where there are no texts.
    `ties`: whether a battle can be a tie; where not, every p_tie is 0. `data`: the name of the battles' file, for people.
    `about`: what is known of the rows' texts (`ensemble.members.texts`), in their order.
    `lost_rows`: those that some member has and not all; `lost_by`: how many of all that some member has each one lacks.
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
    digest: str
    lost_rows: int
    left_out: dict[str, str]
    lost_by: dict[str, int] = field(default_factory=dict)
    ties: bool = True
    data: str = ""
    about: pd.DataFrame | None = None
    lengths: np.ndarray | None = None

    @property
    def characters(self) -> np.ndarray:
        """Characters (rows,) of prompt and responses; 0 where there are no texts."""
        total: np.ndarray = np.zeros(len(self.y)) if self.lengths is None else self.lengths.sum(axis=1)
        return total

    @property
    def uniform_loss(self) -> float:
        """Log loss of giving every outcome that there is the same chance."""
        return uniform_loss(ties=self.ties)

    @property
    def prior(self) -> Triple:
        """Label shares with one battle of each label added.

        A and B are alike, since their order is random.
        """
        counts = np.bincount(self.y, minlength=3) + np.array([1.0, 1.0, float(self.ties)])
        side = float((counts[0] + counts[1]) / counts.sum() / 2) if self.ties else 0.5
        return side, side, 1.0 - 2 * side

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
            about=None if self.about is None else self.about.iloc[index],
            lengths=None if self.lengths is None else self.lengths[index],
        )


def balanced_folds(groups: np.ndarray, n_folds: int = FOLDS, *, repeat: int = 0) -> np.ndarray:
    """Folds (rows,) of about equally many groups, other ones for each `repeat`.

    The hash of a group is not the one by which stages hold rows out.
    """
    unique, inverse = np.unique(groups, return_inverse=True)
    salt = repeat.to_bytes(8, "little")
    digests = [hashlib.blake2b(int(g).to_bytes(8, "little", signed=True), digest_size=8, salt=salt).digest() for g in unique]
    rank = np.empty(len(unique), dtype=np.int64)
    rank[np.array(sorted(range(len(unique)), key=lambda i: digests[i]), dtype=np.int64)] = np.arange(len(unique))
    folds: np.ndarray = (rank % n_folds)[inverse]
    return folds
