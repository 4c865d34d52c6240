"""Extra training battles, without any that leak the held-out fold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import Held, TrainSpec
from zoo.data.battles import Battles
from zoo.data.splits import assign_folds, normal_text
from zoo.data.usable import usable_battles
from zoo.data.votes import VOTES
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.train.examples import smoothed, with_votes


def extra_rows(path: Path, main: Battles, held: Held, spec: TrainSpec) -> tuple[Any, np.ndarray, dict[str, float]]:
    """The rows of the file at `path` that may be learned from, with their targets (rows, 3).

    Returned with how many are used and left out. A target sums to `spec.extra_weight`: vote shares where they are asked for and
    the file has them, else the label.
    """
    extra = usable_battles(path, keep=VOTES, say=progress.note)
    frame = extra.frame[extra.frame["label"] >= 0]
    usable = frame[may_learn(frame, main.frame, held)].reset_index(drop=True)
    if usable.empty:
        raise ZooError(
            f"train.extra: {path}: none of its {len(frame)} labelled rows can be learned from; "
            "all share a prompt with the held-out fold or stand in the main file"
        )
    targets = np.eye(3)[usable["label"].to_numpy(dtype=np.int64)]
    counts = {"train/extra_rows": float(len(usable)), "train/extra_rows_left_out": float(len(frame) - len(usable))}
    if spec.targets == "votes" and set(VOTES) <= set(extra.kept):
        targets, voted = with_votes(targets, extra, usable["id"].tolist())
        counts["train/extra_rows_with_votes"] = float(voted)
    return usable, spec.extra_weight * smoothed(targets, spec.label_smoothing), counts


def may_learn(extra: Any, main: Any, held: Held) -> np.ndarray:
    """Which rows of `extra` neither leak held-out rows of `main` nor double a row of it.

    bool, shape (rows,). A row leaks if its prompt's fold is the held one, or if one of its prompt's turns, or all of them as
    one text, is also a turn or the whole of a prompt in that fold: a question that is asked second there may be asked first
    here. A row is doubled if the main file has its id, or its prompt with the same two responses in either order.
    """
    held_out = main[assign_folds(main, held.n_folds) == held.fold]
    asked = {text for turns in held_out["prompt"] for text in prompt_texts(turns)}
    ids, known = set(main["id"]), set(battle_keys(main))
    in_fold = assign_folds(extra, held.n_folds) == held.fold
    leaks = np.array([not asked.isdisjoint(prompt_texts(turns)) for turns in extra["prompt"]], dtype=bool)
    doubled = [row_id in ids or key in known for row_id, key in zip(extra["id"], battle_keys(extra), strict=True)]
    learnt: np.ndarray = ~in_fold & ~leaks & ~np.array(doubled, dtype=bool)
    return learnt


def prompt_texts(turns: Iterable[str | None]) -> set[str]:
    """Each turn that holds text, and all of them joined, as folds compare them.

    See `zoo.data.splits.fold_of`.
    """
    normal = [normal_text(turn) for turn in turns if turn]
    return {text for text in (*normal, " ".join(normal)) if text}


def battle_keys(frame: Any) -> list[tuple[str, frozenset[str]]]:
    """What a battle is but for white space, case and the order of its responses."""

    def joined(turns: Iterable[str | None]) -> str:
        return "\0".join(normal_text(turn or "") for turn in turns)

    rows = zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True)
    return [(joined(prompt), frozenset((joined(a), joined(b)))) for prompt, a, b in rows]
