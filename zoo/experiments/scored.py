"""What trained models say of labelled rows, whichever stage said it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.contracts import Variant
from zoo.scores.tables import EVALUATED, OK, SCORES, probabilities, read_scores, without_ties
from zoo.store import Artifact


@dataclass(frozen=True)
class Labels:
    """Labels of a file by row id, and its rows' prompts as numbers.

    `ties`: whether its battles can be ties.
    """

    by_id: Mapping[str, int]
    prompts: Mapping[str, int]
    ties: bool


@dataclass(frozen=True)
class Scored:
    """A trained model's probabilities of labelled rows.

    `ids`, `p` (rows, 3), labels `y` (rows,), `folds` (rows,); `ties`: whether the file's battles can be ties, else p_tie is 0.
    """

    ids: Sequence[str]
    p: np.ndarray
    y: np.ndarray
    folds: np.ndarray
    ties: bool

    def of(self, rows: np.ndarray) -> Scored:
        """The rows of a boolean mask."""
        return Scored([self.ids[i] for i in np.flatnonzero(rows)], self.p[rows], self.y[rows], self.folds[rows], self.ties)


def scored_rows(artifact: Artifact, labels: Labels) -> Scored:
    """What an evaluation, or a lexical score, says of the labelled rows.

    In their order in its table.
    """
    known, ties = labels.by_id, labels.ties
    lexical = artifact.manifest.stage == "lexical-score"
    table = read_scores(artifact.path / (f"{Variant().slug}/{SCORES}" if lexical else EVALUATED))
    table = table[table["id"].isin(known.keys()) & (table["status"] == OK)]
    p = probabilities(table) if ties else without_ties(probabilities(table))
    return Scored(table["id"].tolist(), p, np.array([known[i] for i in table["id"]]), table["fold"].to_numpy(), ties)
