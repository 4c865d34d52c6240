"""Training examples: token ids in both response orders, and target shares of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import PromptSpec, TrainSpec
from zoo.data.battles import Battles
from zoo.data.judges import JUDGED_BY
from zoo.data.votes import vote_shares
from zoo.errors import ZooError
from zoo.models.prompts import Codec, encode_fields, fit_fields, room
from zoo.scores.tables import OK, PROBABILITIES, probabilities, read_columns, read_scores

VERDICT_COLUMNS = ("id", *PROBABILITIES, "status")


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
    """Token ids of battles in both response orders.

    `targets` (rows, 3), default the labels alone. A row without a label has that of the most of its target.
    """
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    room(codec, prompt)  # told before the first battle
    fields = encode_fields(turns, codec, prompt)
    ab, ba = ([fit_fields(own, codec, prompt, order) for own in fields] for order in ("ab", "ba"))
    labels = frame["label"].to_numpy(dtype=np.int64)
    learned = np.eye(3)[labels] if targets is None else targets
    labels = np.where(labels < 0, learned.argmax(axis=1), labels)
    rows = zip(frame["id"], ab, ba, labels, learned.tolist(), strict=True)
    return [Example(str(id_), x.ids, y.ids, int(label), tuple(target)) for id_, x, y, label, target in rows]


@dataclass(frozen=True)
class Learned:
    """What each row should get, (rows, 3).

    With it how many rows have that from votes, and from a teacher. NaN where a row has none of these and no label.
    """

    targets: np.ndarray
    voted: int = 0
    taught: int = 0


def read_teacher(path: Path) -> Any:
    """A teacher's probabilities by row id, without the rows that it failed on.

    A score table, or verdicts of `zoo data judge`, which have neither folds nor token counts.
    """
    table = read_columns(path)
    if not {JUDGED_BY, *VERDICT_COLUMNS} <= set(table):
        table = read_scores(path)
    known = table[table["status"] == OK][list(VERDICT_COLUMNS)].astype({"id": str})
    if not known["id"].is_unique or not np.isfinite(probabilities(known)).all():
        raise ZooError(f"{path}: a teacher's table has an id twice, or rows without probabilities; judge or score again")
    return known.set_index("id")


def learned_targets(frame: Any, battles: Battles, spec: TrainSpec, *, votes: bool, teacher: Any = None) -> Learned:
    """What each row of a frame of battles should get.

    A row's own target is its label, or with `votes` its vote shares where it has them. A teacher's probabilities p become
    softmax(log p / temperature) (Hinton et al. 2015, arXiv 1503.02531) and are mixed in with `teacher_weight` where its table
    has the row; they are all of the target where the row has none of its own. The teacher must not have seen the row: an
    out-of-fold table. Then the target is smoothed.
    """
    labels = frame["label"].to_numpy(dtype=np.int64)
    targets = np.where(labels[:, None] >= 0, np.eye(3)[labels], np.nan)
    voted = taught = 0
    if votes:
        targets, voted = with_votes(targets, battles, frame["id"])
    if teacher is not None:
        known = frame["id"].isin(teacher.index).to_numpy()
        logs = np.log(np.clip(probabilities(teacher.loc[frame["id"][known]]), 1e-9, 1)) / spec.teacher_temperature
        soft = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
        own = np.where(np.isnan(targets[known]), soft, targets[known])
        targets[known] = spec.teacher_weight * soft + (1 - spec.teacher_weight) * own
        taught = int(known.sum())
    return Learned(smoothed(targets, spec.label_smoothing), voted, taught)


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
