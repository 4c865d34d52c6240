"""Extra battles that the folds of a lexical model learn from, each without its own prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.contracts import ExtraBattles, Held, LexicalTrainRequest
from zoo.data.battles import Battles
from zoo.data.columns import VOTES
from zoo.data.usable import usable_battles
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.train.examples import with_votes
from zoo.stages.train.extra_battles import NEAR, REASONS, why_not


@dataclass(frozen=True)
class FoldRows:
    """Extra rows that at least one fold learns from.

    `targets` (rows, 3), each its file's weight in sum; `learned` (rows, folds): which folds learn it.
    """

    frame: pd.DataFrame
    targets: np.ndarray
    learned: np.ndarray


def extra_rows_of_folds(request: LexicalTrainRequest, main: Battles) -> tuple[FoldRows, dict[str, float]]:
    """The extra rows of every file, and how many there are.

    A battle of two files is learned from the first. ZooError where vote shares are asked for and no file has any, and where a
    fold may learn nothing of a file.
    """
    spec = request.spec
    found = FoldRows(main.frame.iloc[:0], np.empty((0, 3)), np.empty((0, spec.folds), dtype=bool))
    counts = dict.fromkeys(("train/extra_rows", "train/extra_rows_left_out", "train/extra_rows_near_copies"), 0.0)
    voted = 0
    for extra in request.extra_files:
        battles = usable_battles(extra.battles.path, keep=VOTES, say=progress.note)
        votes = (spec.extra_targets or spec.targets) == "votes" and set(VOTES) <= set(battles.kept)
        labels = battles.frame["label"].to_numpy(dtype=np.int64)
        targets = np.where(labels[:, None] >= 0, np.eye(3)[labels], np.nan)
        if votes:
            targets, own = with_votes(targets, battles, battles.frame["id"].tolist())
            voted += own
        says = np.isfinite(targets).all(axis=1)
        frame, targets = battles.frame[says].reset_index(drop=True), targets[says]
        reasons = [_why_not(frame, main, request, fold, found) for fold in range(spec.folds)]
        learned = np.stack(reasons, axis=1) == ""
        _check(extra, learned, reasons)
        some = learned.any(axis=1)
        counts["train/extra_rows"] += float(some.sum())
        counts["train/extra_rows_left_out"] += float((~some).sum())
        counts["train/extra_rows_near_copies"] += float((~some & (reasons[0] == NEAR)).sum())
        found = FoldRows(
            pd.concat([found.frame, frame[some]], ignore_index=True),
            np.concatenate([found.targets, extra.weight * targets[some]]),
            np.concatenate([found.learned, learned[some]]),
        )
    if spec.extra_targets == "votes" and request.extra_files and not voted:
        raise ZooError(
            f"lexical.extra_targets = 'votes': no row of the extra files has {', '.join(VOTES)}; take the setting out"
        )
    if request.extra_files and (spec.extra_targets or spec.targets) == "votes":
        counts["train/extra_rows_with_votes"] = float(voted)
    return found, counts if request.extra_files else {}


def _why_not(frame: pd.DataFrame, main: Battles, request: LexicalTrainRequest, fold: int, earlier: FoldRows) -> np.ndarray:
    held = Held(n_folds=request.spec.folds, fold=fold, rule=request.rule)
    return why_not(frame, main.frame, held, request.extra_rule, [earlier.frame[earlier.learned[:, fold]]])


def _check(extra: ExtraBattles, learned: np.ndarray, reasons: list[np.ndarray]) -> None:
    """Say how many rows of a file are learned, and refuse a file of which a fold learns none."""
    rows = learned.sum(axis=0)
    fold = int(rows.argmin())
    told = ", ".join(f"{count:,} {reason}" for reason in REASONS if (count := int((reasons[fold] == reason).sum())))
    told = told or "it has no labels"
    path = extra.battles.path
    if not rows[fold]:
        raise ZooError(f"lexical.extra: {path}: none of its {len(learned)} labelled rows is left for fold {fold}: {told}")
    span = f"{rows.min():,} to {rows.max():,}" if rows.min() < rows.max() else f"{rows.min():,}"
    progress.note(
        f"{path}: a fold learns from {span} of {len(learned):,} labelled rows, weight {extra.weight:g}; left out: {told}"
    )
