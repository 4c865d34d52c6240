"""Training examples: token ids in both response orders, and target shares of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import PromptSpec, TrainSpec
from zoo.data.battles import Battles
from zoo.data.votes import vote_shares
from zoo.errors import ZooError
from zoo.models.prompts import Codec, encode_battles
from zoo.scores.tables import OK, probabilities, read_scores


@dataclass(frozen=True)
class Example:
    """One battle in both response orders, its label and what to learn.

    The label (0 A, 1 B, 2 tie) and the target are in its own A/B. `target` sums to the weight of the row's loss, 1 for a row of
    the main file.
    """

    id: str
    ab: list[int]
    ba: list[int]
    label: int
    target: tuple[float, float, float]


def examples(frame: Any, codec: Codec, prompt: PromptSpec, targets: np.ndarray | None = None) -> list[Example]:
    """Token ids of labelled battles in both response orders.

    `targets` (rows, 3), default the labels alone.
    """
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    ab, ba = (encode_battles(turns, codec, prompt, order) for order in ("ab", "ba"))
    labels = frame["label"].to_numpy(dtype=np.int64)
    learned = np.eye(3)[labels] if targets is None else targets
    rows = zip(frame["id"], ab, ba, labels, learned.tolist(), strict=True)
    return [Example(str(id_), x.ids, y.ids, int(label), tuple(target)) for id_, x, y, label, target in rows]


def learned_targets(frame: Any, battles: Battles, spec: TrainSpec, teacher: Path | None) -> tuple[np.ndarray, dict[str, float]]:
    """What each row should get, (rows, 3), and how many rows have it from elsewhere.

    The counts are of votes and of a teacher. A row's own target is its label, or its vote shares. A teacher's probabilities p
    become softmax(log p / temperature) and are mixed in with `teacher_weight`, where its table has the row. The teacher must
    not have seen it: an out-of-fold table.
    """
    targets, counts = np.eye(3)[frame["label"].to_numpy(dtype=np.int64)], {}
    if spec.targets == "votes":
        targets, voted = with_votes(targets, battles, frame["id"])
        counts["train/rows_with_votes"] = float(voted)
    if teacher is not None:
        table = read_scores(teacher)
        table = table[table["status"] == OK].set_index("id")
        taught = frame["id"].isin(table.index).to_numpy()
        if not taught.any():
            raise ZooError(f"{teacher}: has none of the rows to train on; score the teacher on the same battles, out of fold")
        logs = np.log(np.clip(probabilities(table.loc[frame["id"][taught]]), 1e-9, 1)) / spec.teacher_temperature
        soft = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
        targets[taught] = spec.teacher_weight * soft + (1 - spec.teacher_weight) * targets[taught]
        counts["train/rows_with_teacher"] = float(taught.sum())
    return smoothed(targets, spec.label_smoothing), counts


def with_votes(targets: np.ndarray, battles: Battles, ids: Sequence[str]) -> tuple[np.ndarray, int]:
    """Targets (rows, 3) with the vote shares of the rows that have them, and how many have."""
    shares = vote_shares(battles, ids)
    voted = np.isfinite(shares).all(axis=1)
    return np.where(voted[:, None], shares, targets), int(voted.sum())


def smoothed(targets: np.ndarray, share: float) -> np.ndarray:
    """Label smoothing (Szegedy et al. 2016, arXiv 1512.00567).

    `share` of each row's mass is spread over the labels evenly.
    """
    smooth: np.ndarray = (1 - share) * targets + share / targets.shape[1]
    return smooth
