"""Trained models on battles of another source: as they stand, and recalibrated there by prompt folds; by halves of the prompts.

    python experiments/007-made-data/away.py lmsys_dev.csv NAME=PROBABILITIES.parquet[,PROBABILITIES.parquet...] ...

Each NAME is one model, or the mean of several tables' probabilities. Of each, in nats with standard errors over rows: log loss
on all rows, on the first and on the second half of the prompts (two folds by `near-prompts-1`: choices are made on the first),
and on all rows after softmax(w log p + biases), fitted on four fifths of the prompts and measured on the rest. The last column
is the change of the recalibrated loss against the first NAME's, paired by row.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from zoo.data.battles import read_battles
from zoo.data.splits import assign_folds
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import probabilities, read_scores

RULE, FOLDS, RIDGE = "near-prompts-1", 5, 1e-4


def recalibrated(p: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(rows, 3): each row by a temperature and biases that were fitted without its fold."""
    logs, found = np.log(np.clip(p, 1e-12, 1)), np.zeros_like(p)

    def mapped(w: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.asarray(log_softmax(w[0] * logs[rows] + np.append(w[1:], 0), axis=1))

    for fold in range(FOLDS):
        held, others = folds == fold, folds != fold

        def objective(w: np.ndarray, others: np.ndarray = others) -> float:
            return float(-mapped(w, others)[np.arange(others.sum()), y[others]].mean() + RIDGE * (w**2).sum())

        found[held] = np.exp(mapped(minimize(objective, [1.0, 0.0, 0.0], method="L-BFGS-B").x, held))
    return found


def shown(losses: np.ndarray) -> str:
    return "{:.4f} ± {:.4f}".format(*mean_and_error(losses))


def main() -> None:
    battles = read_battles(Path(sys.argv[1])).frame
    battles = battles[battles["label"] >= 0].reset_index(drop=True)
    y, folds, halves = battles["label"].to_numpy(), assign_folds(battles, FOLDS, RULE), assign_folds(battles, 2, RULE)
    print(f"| model | all {len(y)} | first half ({(halves == 0).sum()}) | second half | recalibrated | against the first |")
    print("| --- | --- | --- | --- | --- | --- |")
    first = None
    for argument in sys.argv[2:]:
        name, _, tables = argument.partition("=")
        p = np.mean([probabilities(read_scores(Path(t)).set_index("id").loc[battles["id"]]) for t in tables.split(",")], axis=0)
        raw, fitted = log_loss_rows(p, y), log_loss_rows(recalibrated(p, y, folds), y)
        first = fitted if first is None else first
        parts = [shown(raw), shown(raw[halves == 0]), shown(raw[halves == 1]), shown(fitted)]
        print(f"| {name} | {' | '.join(parts)} | {'{:+.4f} ± {:.4f}'.format(*mean_and_error(fitted - first))} |")


if __name__ == "__main__":
    main()
