"""Baselines: what simpler ensembles of the same members reach out of fold."""

from __future__ import annotations

import numpy as np

from zoo.scores.metrics import log_loss_rows

GREEDY_ROUNDS = 25  # TabRepo (Salinas, Erickson 2024, arXiv 2311.02971) found nothing beyond it


def label_shares(y: np.ndarray, *, ties: bool) -> np.ndarray:
    """Shares (3,) of the labels, one battle of each added.

    Of each that there can be: without `ties` a tie has none.
    """
    counts = np.bincount(y, minlength=3) + np.array([1.0, 1.0, float(ties)])
    shares: np.ndarray = counts / counts.sum()
    return shares


def baseline_losses(p: np.ndarray, y: np.ndarray, folds: np.ndarray, *, ties: bool = True) -> dict[str, np.ndarray]:
    """Losses (rows,) by baseline, of candidates with tables p (members, rows, 3).

    Every fit is made on the other folds. The best single member is the best on all rows, as its table is: choosing it by other
        would flatter a plan beside it. Equal weights need no fit. `ties`: whether a battle can be a tie.
    """
    singles = (log_loss_rows(table, y) for table in p)
    losses = {
        "best_single": min(singles, key=lambda rows: float(rows.mean())),
        "equal_weights": log_loss_rows(p.mean(axis=0), y),
    }
    losses |= {name: np.empty(len(y)) for name in ("greedy_25", "logistic_stacking")}
    for fold in np.unique(folds):
        held = folds == fold
        weights = greedy_weights(p[:, ~held], y[~held])
        losses["greedy_25"][held] = log_loss_rows(np.tensordot(weights, p[:, held], axes=1), y[held])
        losses["logistic_stacking"][held] = log_loss_rows(_stack(p[:, ~held], y[~held], p[:, held], ties=ties), y[held])
    return losses


def greedy_weights(p: np.ndarray, y: np.ndarray, rounds: int = GREEDY_ROUNDS) -> np.ndarray:
    """Weights by ensemble selection with replacement (Caruana et al. 2004).

    Each round adds the member that lowers the log loss most.
    """
    true = np.maximum(p[:, np.arange(len(y)), y], 1e-15)
    counts, total = np.zeros(len(p)), np.zeros(len(y))
    for _ in range(rounds):
        best = int(np.log(total + true).mean(axis=1).argmax())
        counts[best] += 1
        total += true[best]
    weights: np.ndarray = counts / counts.sum()
    return weights


def _stack(p: np.ndarray, y: np.ndarray, held: np.ndarray, *, ties: bool) -> np.ndarray:
    """Triples (rows, 3) of the held rows by multinomial logistic regression (scikit-learn).

    On log-probabilities.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(tables: np.ndarray) -> np.ndarray:
        return np.hstack(list(np.log(np.maximum(tables, 1e-6))))

    if len(np.unique(y)) < 2:  # nothing to learn: the shares, with one battle of each label added
        return np.tile(label_shares(y, ties=ties), (held.shape[1], 1))
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky")).fit(features(p), y)
    out = np.full((held.shape[1], 3), 0.0)
    out[:, model.classes_] = model.predict_proba(features(held))
    return out
