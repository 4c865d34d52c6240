"""Fit boosted trees with LightGBM and hand them on as numbers.

Nothing of LightGBM is needed to apply them (`trees`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.plan import Tree, Trees
from ensemble.pools.coordinates import lead_and_odds
from ensemble.pools.trees import names_of, tree_features

MOST_ROUNDS = 200
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "num_threads": 1,  # two wait for one another more than they help at this size, most of all on a busy machine
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Task:
    """One of the two questions that trees answer.

    `x`: features (rows, n); `answer` (rows,), 0 or 1; `odds` (rows,), the blend's log-odds of 1.
    """

    x: np.ndarray
    answer: np.ndarray
    odds: np.ndarray


def fit_trees(
    p: np.ndarray,
    base: np.ndarray,
    y: np.ndarray,
    rounds: tuple[int, int],
    lengths: np.ndarray | None = None,
    *,
    ties: bool,
    position_bias: bool,
) -> Trees:
    """Trees that correct a blend toward the labels y (rows,).

    `base` (rows, 3) is what the blend gives of tables p (members, rows, 3). `rounds`: how many trees for the side, and for
    whether it is a tie. `lengths` (rows, 3) of the texts, which they read where given.
    """
    side, tie = tasks(p, base, y, lengths, ties=ties, position_bias=position_bias)
    return Trees(
        n_features=side.x.shape[1],
        reads=names_of(lengths),
        position_bias=position_bias,
        lead=numbers(train(side, rounds[0])) if rounds[0] else (),
        tie=numbers(train(tie, rounds[1])) if tie is not None and rounds[1] else (),
    )


def tasks(
    p: np.ndarray, base: np.ndarray, y: np.ndarray, lengths: np.ndarray | None = None, *, ties: bool, position_bias: bool
) -> tuple[Task, Task | None]:
    """The two questions: which side wins the battles that are no ties, and which are ties.

    The side is seen from the one that the blend favours; rows in which it favours none are left out of the first.
    """
    x, side = tree_features(p, base, lengths, ties=ties, position_bias=position_bias)
    lead, odds = lead_and_odds(base, ties=ties)
    decided = (y < 2) & (side != 0)
    won = (y == 0) == (side > 0)
    of_side = Task(x[decided], won[decided].astype(np.float64), (lead * side)[decided])
    return of_side, Task(x, (y == 2).astype(np.float64), odds) if ties else None


def train(task: Task, rounds: int, held: Task | None = None, *, curve: list[float] | None = None) -> Any:
    """A LightGBM booster of so many trees.

    `curve` is filled with the log loss of `held` after each.
    """
    import lightgbm

    data = lightgbm.Dataset(task.x, task.answer, init_score=task.odds)
    if held is None or curve is None:
        return lightgbm.train(PARAMETERS, data, rounds)
    beside = lightgbm.Dataset(held.x, held.answer, init_score=held.odds, reference=data)
    seen: dict[str, Any] = {}
    booster = lightgbm.train(
        PARAMETERS, data, rounds, valid_sets=[beside], valid_names=["held"], callbacks=[lightgbm.record_evaluation(seen)]
    )
    curve.extend(seen["held"]["binary_logloss"])
    return booster


def numbers(booster: Any) -> tuple[Tree, ...]:
    """A booster's trees as numbers."""
    return tuple(_tree(item["tree_structure"]) for item in booster.dump_model()["tree_info"])


def _tree(root: dict[str, Any]) -> Tree:
    features: list[int] = []
    thresholds: list[float] = []
    children: list[list[int]] = []
    values: list[float] = []

    def place(node: dict[str, Any]) -> int:
        if "leaf_value" in node:
            values.append(float(node["leaf_value"]))
            return ~(len(values) - 1)
        at = len(features)
        features.append(int(node["split_feature"]))
        thresholds.append(float(node["threshold"]))
        children.append([0, 0])
        children[at] = [place(node["left_child"]), place(node["right_child"])]
        return at

    place(root)
    left, right = zip(*children, strict=True) if children else ((), ())
    return Tree(features=tuple(features), thresholds=tuple(thresholds), left=left, right=right, values=tuple(values))
