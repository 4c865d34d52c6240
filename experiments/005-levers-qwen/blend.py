"""What a trained model is worth on battles of another kind, alone and beside the lexical entry, once both are calibrated there.

    python experiments/005-levers-qwen/blend.py --table PROBABILITIES.parquet --lexical SUBMISSION.csv --battles lmsys_dev.csv

`--table` is a trial's `probabilities.parquet` (`zoo experiment`) on the battles, `--lexical` what `ensemble predict` wrote for
them with a plan of it alone. softmax(sum_k w_k log p_k + biases) is fitted on four folds of the battles' prompts and
measured on the fifth; small-sample fits are held back by a ridge of 1e-4.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from zoo.data.battles import read_battles
from zoo.data.splits import assign_folds
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import SUBMISSION_COLUMNS, probabilities, read_scores

FOLDS, RIDGE = 5, 1e-4


def pooled(parameters: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """log softmax(sum_k w_k logs_k + biases): logs (models, rows, 3), parameters (models + 2,) -> (rows, 3)."""
    n = len(logs)
    found: np.ndarray = log_softmax(np.tensordot(parameters[:n], logs, 1) + np.append(parameters[n:], 0), axis=1)
    return found


def fit(logs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights and the biases of A and B with the least log loss."""

    def objective(parameters: np.ndarray) -> float:
        chosen = pooled(parameters, logs)[np.arange(len(y)), y]
        return float(-chosen.mean() + RIDGE * (parameters**2).sum())

    start = np.append(np.full(len(logs), 1 / len(logs)), [0.0, 0.0])
    return np.asarray(minimize(objective, start, method="L-BFGS-B").x)


def cross_fitted(logs: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Log loss of each row by a fit that did not see its fold: (rows,)."""
    p = np.zeros((len(y), 3))
    for fold in range(FOLDS):
        held = folds == fold
        p[held] = np.exp(pooled(fit(logs[:, ~held], y[~held]), logs[:, held]))
    return log_loss_rows(p, y)


def line(name: str, losses: np.ndarray) -> str:
    return f"{name:32s} {losses.mean():+.4f} ± {losses.std(ddof=1) / len(losses) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("table", "lexical", "battles"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asked = parser.parse_args()
    battles = read_battles(asked.battles).frame
    battles = battles[battles["label"] >= 0].reset_index(drop=True)
    y, folds = battles["label"].to_numpy(), assign_folds(battles, FOLDS)
    model = probabilities(read_scores(asked.table).set_index("id").loc[battles["id"]])
    lexical = pd.read_csv(asked.lexical, dtype={"id": str}).set_index("id").loc[battles["id"], list(SUBMISSION_COLUMNS[1:])]
    logs = np.log(np.clip(np.array([model, lexical.to_numpy()]), 1e-12, 1))
    found = {"model": logs[:1], "lexical": logs[1:], "both": logs}
    losses = {name: cross_fitted(part, y, folds) for name, part in found.items()}
    for name, values in losses.items():
        print(line(f"{name}, calibrated", values))
    for name in ("model", "lexical"):
        print(line(f"both against {name}", losses["both"] - losses[name]))


if __name__ == "__main__":
    main()
