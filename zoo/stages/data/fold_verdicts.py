"""What an entry's fold models say, each row by those that have not seen its prompt.

Fold models and response orders are pooled by the mean of their logarithms. The map of `zoo data label` is fitted on human
battles, of each of which one fold model speaks: the mean of several in probabilities would be flatter than any of them, and the
map would not fit it; that in logarithms keeps the mean of their log-odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import EntryJudge, Variant
from zoo.data.battles import Battles
from zoo.data.judges import TINY, pooled
from zoo.data.splits import folds_of
from zoo.errors import ZooError
from zoo.scores.tables import OK, SCORES, probabilities, read_scores
from zoo.stages.data.unseen import Training, training_of, unseen

SEEN = "seen by the models of all folds"
SEEN_ELSEWHERE = "seen by the model of its fold too, in other prompts"
NOT_ASKED = "asked of no model"


@dataclass(frozen=True)
class Said:
    """What one entry says of the usable rows of one file.

    `p` (rows, 3) and `consistency` (rows,), the share of probability that both response orders have: NaN where it says nothing.
    `models` (rows, folds): which fold models it is the mean of. `cut` (rows,): tokens that did not fit, the most of any
    variant. `reasons` (rows,): why it says nothing, empty where it does.
    """

    p: np.ndarray
    consistency: np.ndarray
    models: np.ndarray
    cut: np.ndarray
    reasons: np.ndarray

    def by(self, row: int) -> str:
        """By whom a row is judged, for people."""
        own = np.flatnonzero(self.models[row])
        if len(own) == self.models.shape[1]:
            return f"{len(own)} folds"
        return f"fold{'s' if len(own) > 1 else ''} {' '.join(map(str, own))}" if len(own) else ""


def said_of_pairs(judge: EntryJudge, pairs: Battles, human: Battles) -> Said:
    """Each pair by the mean of the fold models that have not seen its prompt.

    Whoever scored it beside them is passed over.
    """
    allowed = may_judge(judge, pairs, human)
    tables = [[_table(fold.pairs.path, v, pairs) if fold.pairs else None for fold in judge.folds] for v in judge.variants]
    return _joined(tables, allowed, pairs)


def said_of_human(judge: EntryJudge, human: Battles) -> Said:
    """Each human battle by the model that held out its fold.

    None where that has seen its prompt elsewhere, as a later turn of another or within one: folds look at first turns alone.
    ZooError where a table has a row that its model has learned from.
    """
    trainings = _trainings(judge)
    split = trainings[0].held
    folds = folds_of(human, human.frame["id"], split.n_folds, split.rule)
    own = folds[:, None] == np.array([training.held.fold for training in trainings])
    tables = [[_table(fold.human.path, v, human) for fold in judge.folds] for v in judge.variants]
    for table, fold in zip(tables[0], judge.folds, strict=True):
        there = table["fold"].to_numpy()
        if ((there >= 0) & (there != folds)).any():
            raise ZooError(f"{fold.human.path}: has rows of folds that its model has learned from; score the entry again")
    return _joined(tables, own & unseen(human.frame, human, trainings), human, SEEN_ELSEWHERE)


def may_judge(judge: EntryJudge, pairs: Battles, human: Battles) -> np.ndarray:
    """Which fold models have not seen a pair's prompt: bool, (rows, folds)."""
    return unseen(pairs.frame, human, _trainings(judge))


def _trainings(judge: EntryJudge) -> list[Training]:
    return [training_of(fold.trained.path, fold.fold) for fold in judge.folds]


def _table(folder: Path, variant: Variant, battles: Battles) -> pd.DataFrame:
    """A variant's score table by the rows of the file; what it lacks has no status."""
    table = read_scores(folder / variant.slug / SCORES).set_index("id")
    found = table.reindex(battles.frame["id"])
    return found.fillna({"status": "", "fold": -1, "n_truncated_tokens": 0})


def _joined(tables: Sequence[Sequence[pd.DataFrame | None]], allowed: np.ndarray, battles: Battles, seen: str = SEEN) -> Said:
    """The fold models' tables by variant as one.

    `allowed` (rows, folds) says who may speak, `seen` why nobody may.
    """
    rows = len(battles.frame)
    reasons = np.where(allowed.any(axis=1), "", seen).astype(object)
    each, models, cut = np.full((len(tables), rows, 3), np.nan), allowed.copy(), np.zeros(rows, dtype=np.int64)
    for own in tables:
        for fold, table in enumerate(own):
            models[:, fold] &= False if table is None else (table["status"] == OK).to_numpy()
    for place, own in enumerate(tables):
        logs, count = np.zeros((rows, 3)), np.zeros(rows, dtype=np.int64)
        for fold, table in enumerate(own):
            if table is None:
                continue
            speaks = models[:, fold]
            logs[speaks] += np.log(np.maximum(probabilities(table)[speaks], TINY))
            count += speaks
            cut[speaks] = np.maximum(cut[speaks], table["n_truncated_tokens"].to_numpy(dtype=np.int64)[speaks])
            for row in np.flatnonzero(allowed[:, fold] & ~speaks):
                status = table["status"].iloc[row]
                reasons[row] = reasons[row] or (status if status != OK else "")
        there = count > 0
        each[place, there] = _normal(logs[there] / count[there, None])
    silent = ~models.any(axis=1)
    reasons[silent & (reasons == "")] = NOT_ASKED
    reasons[~silent] = ""
    p, consistency = np.full((rows, 3), np.nan), np.full(rows, np.nan)
    for row in np.flatnonzero(~silent):
        p[row], consistency[row] = pooled(each[:, row])
    return Said(p, consistency, models, cut, reasons)


def _normal(logs: np.ndarray) -> np.ndarray:
    """Distributions (rows, 3) of logarithms that are so but for a constant of each row."""
    found = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: np.ndarray = found / found.sum(axis=1, keepdims=True)
    return shares
