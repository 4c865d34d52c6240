"""The out-of-fold table: the score tables of all folds joined, with metrics by fold.

The chains that make these tables are in `zoo.pipeline.folds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.errors import ZooError
from zoo.scores.metrics import score_metrics
from zoo.scores.tables import NO_FOLD, OK, SCORES, probabilities, read_scores
from zoo.store import Artifact


@dataclass(frozen=True)
class OutOfFold:
    """One variant over all folds: the joined table, and its metrics by fold and over every row."""

    slug: str
    table: pd.DataFrame
    by_fold: dict[int, dict[str, float]]
    whole: dict[str, float]


def out_of_fold(scored: Sequence[Artifact], labels: pd.Series, groups: pd.Series, *, ties: bool = True) -> list[OutOfFold]:
    """Each variant's tables of all folds as one, with metrics.

    `labels`: 0, 1, 2 by row id, -1 where there is none; `groups`: what is the same for rows of one prompt, by row id, by which
    errors go; `ties`: whether the battles can be ties. ZooError where a row is scored in two folds: then the tables are not of
    one split.
    """
    slugs = sorted({path.parent.name for artifact in scored for path in artifact.path.glob(f"*/{SCORES}")})
    paths = {slug: [artifact.path / slug / SCORES for artifact in scored] for slug in slugs}
    # Each form of a checkpoint has an artifact of its own, with its variants alone.
    tables = {slug: [read_scores(path) for path in found if path.exists()] for slug, found in paths.items()}
    return [_joined(slug, tables[slug], labels, groups, ties=ties) for slug in slugs]


def _joined(slug: str, tables: Sequence[pd.DataFrame], labels: pd.Series, groups: pd.Series, *, ties: bool) -> OutOfFold:
    table = pd.concat(tables, ignore_index=True)
    if twice := table.loc[table["id"].duplicated(), "id"].tolist():
        raise ZooError(
            f"{slug}: {len(twice)} rows are scored in two folds, first {twice[0]}; the tables are of different splits"
        )
    if (table["fold"] != NO_FOLD).any():  # the others a model from elsewhere has learned from
        table = table[table["fold"] != NO_FOLD].reset_index(drop=True)
    parts = {fold: table[table["fold"] == fold] for fold in sorted(set(table["fold"].tolist()))}
    by_fold = {fold: _metrics(part, labels, groups, ties=ties) for fold, part in parts.items()}
    return OutOfFold(slug, table, by_fold, _metrics(table, labels, groups, ties=ties))


def _metrics(table: pd.DataFrame, labels: pd.Series, groups: pd.Series, *, ties: bool) -> dict[str, float]:
    truth = labels.reindex(table["id"]).to_numpy()
    known = (table["status"] == OK).to_numpy() & (np.nan_to_num(truth, nan=-1) >= 0)
    own = groups.loc[table["id"][known]].to_numpy()
    return score_metrics(probabilities(table)[known], truth[known].astype(np.int64), ties=ties, groups=own)
