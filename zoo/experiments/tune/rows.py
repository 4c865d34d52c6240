"""The held-out rows of `zoo tune`: some to choose by, and others to judge by.

The best of several trials is better on the rows that it was chosen by than elsewhere: that is what made it the best. So the
rows that trainings are compared by are a part of the held-out fold, and the winner is compared with the entry's own settings on
rows of prompts that no trial has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import Held, Input, TrainSpec
from zoo.data.splits import groups_of, sample_rows, select_training
from zoo.data.usable import usable_battles
from zoo.errors import ZooError, amount
from zoo.experiments.scored import Labels
from zoo.store import file_sha256, write_atomic

LEAST_PROMPTS = 10  # to choose by, and to judge by: an error by fewer prompts says nothing
JUDGED_TIMES = 4  # rows to judge by, at most, for each to choose by: they are read twice, the others by every trial


@dataclass(frozen=True)
class HeldRows:
    """Ids of held-out rows, and the labels and prompts of all of them.

    `choosing`: what every training measures its held-out log loss on, with `train.eval_rows` as it is here; `judging`: of other
    prompts.
    """

    choosing: tuple[str, ...]
    judging: tuple[str, ...]
    labels: Labels

    def prompts(self, ids: tuple[str, ...]) -> int:
        """How many prompts some rows are of.

        Near-copies of one count once where the folds have them so.
        """
        return len({self.labels.prompts[row_id] for row_id in ids})


def split_held(path: Path, held: Held, eval_rows: int) -> HeldRows:
    """Deal the held-out fold of a file into rows to choose by and rows to judge by.

    The former are those that a training with `eval_rows` looks at, fewer where these would leave no prompts for the latter.
    ZooError where the fold has too few prompts.
    """
    battles = usable_battles(path)
    _, frame = select_training(battles, held)
    groups = groups_of(battles, frame["id"], held.rule) if len(frame) else np.zeros(0, dtype=np.int64)
    most = min(eval_rows, len(frame) // 2)
    for count in (round(most * share / 8) for share in range(8, 0, -1)):
        chosen = sample_rows(frame, count) if count else frame.iloc[:0]
        is_chosen = np.isin(groups, groups[frame["id"].isin(set(chosen["id"])).to_numpy()])
        apart = sample_rows(frame[~is_chosen], JUDGED_TIMES * max(count, 1))
        by_id = pd.Series(groups, index=frame["id"])
        prompts = [by_id.loc[part["id"]].nunique() for part in (chosen, apart)]
        if min(prompts) >= LEAST_PROMPTS and len(apart) >= count:
            by_label = {str(row_id): int(label) for row_id, label in zip(frame["id"], frame["label"], strict=True)}
            by_prompt = {str(row_id): int(group) for row_id, group in by_id.items()}
            return HeldRows(tuple(chosen["id"]), tuple(apart["id"]), Labels(by_label, by_prompt, battles.can_tie))
    found = f"{amount(len(frame), 'labelled row')} of {amount(len(set(groups.tolist())), 'prompt')}"
    raise ZooError(
        f"{path}: fold {held.fold} of {held.n_folds} has {found}; tuning chooses by {LEAST_PROMPTS} prompts and "
        f"judges by {LEAST_PROMPTS} others at least: label more rows, or deal them into fewer folds (--folds)"
    )


def with_eval_rows(spec: TrainSpec, rows: HeldRows) -> TrainSpec:
    """The settings of trainings that look at the rows to choose by, and no others."""
    return spec.model_copy(update={"eval_rows": len(rows.choosing)})


def write_ids(rows: HeldRows, path: Path) -> Input:
    """All of the rows as the list of ids that evaluations take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{row_id}\n" for row_id in (*rows.choosing, *rows.judging)))
    return Input(path=path.absolute(), fingerprint=file_sha256(path)[:16])
