"""Metrics of a score table: log loss and its parts, under the names that runs log.

Refinement is the log loss after the best recalibration of a family, calibration error what that recalibration gains (the
calibration-refinement decomposition of a proper score: Berta et al. 2025, arXiv 2501.19195). The family here is
softmax(log p / T + bias): a temperature T > 0 and a bias for each label.
"""

from __future__ import annotations

import numpy as np
from pandas import factorize

from zoo.contracts import LABELS
from zoo.scores.metric_names import ACCURACY, CALIBRATION_ERROR, LOG_LOSS, LOG_LOSS_SE, REFINEMENT, ROWS
from zoo.scores.tables import without_ties

CLIP = 1e-15  # the floor scikit-learn's log_loss used through 1.2 and the competition's metric keeps


def log_loss_rows(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log loss of each row in nats: p of shape (rows, 3), y the labels 0, 1, 2 -> (rows,).

    Of A and B alone p may be (rows, 2). Probabilities are clipped to [1e-15, 1 - 1e-15] and each row is then divided by its
    sum, as scikit-learn used to and the competition does. One row without a chance for its label costs 34.5 nats instead of
    infinity.
    """
    clipped = np.clip(np.asarray(p, dtype=np.float64), CLIP, 1 - CLIP)
    total = np.zeros(len(clipped))
    for column in clipped.T:  # by columns: numpy is slow along an axis of three
        total += column
    losses: np.ndarray = -np.log(clipped[np.arange(len(clipped)), y] / total)
    return losses


def uniform_loss(*, ties: bool) -> float:
    """Log loss in nats of giving each outcome the same chance; without `ties` there are two."""
    return float(np.log(3 if ties else 2))


def even_share(*, ties: bool) -> str:
    """What `uniform_loss` gives each outcome, for people."""
    return "1/3" if ties else "1/2"


def accuracy_of_two(losses: np.ndarray) -> float:
    """Share of rows whose winner has more than 1/2, an even row by half.

    losses (rows,) in nats, of battles that cannot be ties. Of two outcomes the loss says which one is the likelier, however it
    came about.
    """
    return float((1 + np.sign((np.log(2) - losses).round(9))).mean() / 2)


def label_share_loss(y: np.ndarray) -> float:
    """Log loss in nats of predicting these labels' own shares for each of them."""
    shares = np.bincount(y, minlength=3) / len(y)
    seen = shares[shares > 0]
    return float(-(seen * np.log(seen)).sum())


def mean_and_error(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Mean of `values` (rows,) and its standard error; see `standard_error`."""
    return float(values.mean()), standard_error(values, groups)


def standard_error(values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Standard error of the mean of `values` (rows,).

    Rows of one group (prompt) count as dependent where `groups` are given. The sandwich estimator of a mean with clusters:
    sqrt(G / (G - 1) * sum over groups of (sum of deviations)^2) / rows, which is the usual one where each row is a group of its
    own. NaN where there is only one: nothing is known of its spread.
    """
    sums = values - values.mean()
    if groups is not None:
        sums = np.bincount(factorize(groups)[0], weights=sums)
    count = len(sums)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values)) if count > 1 else float("nan")


def recalibrated_log_loss(p: np.ndarray, y: np.ndarray) -> float:
    """Least mean log loss that a temperature and a bias for each label reach.

    `p` of shape (rows, labels): A, B and tie, or A and B alone. Fitted and measured on these same rows: each free parameter, of
    which there are as many as labels, flatters it by about 0.5 / rows nats. Never above the log loss.
    """
    fitted = log_loss_rows(recalibrated(p, fit_recalibration(p, y)), y).mean()
    return float(min(fitted, log_loss_rows(p, y).mean()))


def fit_recalibration(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The temperature and biases of least log loss, (labels,).

    1 / T, then the biases against the last label's. `p` as `recalibrated_log_loss` takes it.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    logs = np.log(np.clip(np.asarray(p, dtype=np.float64), CLIP, 1))
    labels = logs.shape[1]
    truth = np.eye(labels)[y]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        biases = np.append(parameters[1:], 0.0)
        log_q = log_softmax(parameters[0] * logs + biases, axis=1)
        residual = (np.exp(log_q) - truth) / len(truth)
        gradient = np.append((residual * logs).sum(), residual[:, :-1].sum(axis=0))
        return -(truth * log_q).sum() / len(truth), gradient

    bounds = [(0.0, 1e3), *[(-50.0, 50.0)] * (labels - 1)]  # inverse temperature; biases against the last label's
    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500}
    fitted: np.ndarray = minimize(objective, np.eye(labels)[0], jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    return fitted


def recalibrated(p: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Probabilities (rows, labels) under what `fit_recalibration` found, on whatever rows."""
    from scipy.special import softmax

    logs = np.log(np.clip(np.asarray(p, dtype=np.float64), CLIP, 1))
    moved: np.ndarray = softmax(parameters[0] * logs + np.append(parameters[1:], 0.0), axis=1)
    return moved


def score_metrics(
    p: np.ndarray,
    y: np.ndarray,
    n_tokens: np.ndarray | None = None,
    *,
    ties: bool = True,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """Metrics of probabilities (rows, 3) against labels 0, 1, 2, with baselines.

    Log losses are in nats. `val/log_loss_a` and so on are means over the rows with that label and absent where there is none;
    `val/log_loss_se` is the standard error of the mean, by
    prompts where their `groups` (rows,) are given; `baseline/log_loss_prior` predicts these rows' own label shares. With
    `n_tokens` (what the model read of each row) also their mean and the log loss of the longest quarter of the rows. Without
    `ties` the battles are of a kind that has none: p_tie is taken out, and every metric is of A and B alone.
    """
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.int64)
    p = p if ties else without_ties(p)
    if not len(y):
        return {}
    losses = log_loss_rows(p, y)
    log_loss, refinement = float(losses.mean()), recalibrated_log_loss(p if ties else p[:, :2], y)
    metrics = {
        LOG_LOSS: log_loss,
        ACCURACY: float((p.argmax(axis=1) == y).mean()) if ties else accuracy_of_two(losses),
        REFINEMENT: refinement,
        CALIBRATION_ERROR: log_loss - refinement,
        ROWS: float(len(y)),
        "baseline/log_loss_uniform": uniform_loss(ties=ties),
        "baseline/log_loss_prior": label_share_loss(y),
    }
    if len(y) > 1:
        error = standard_error(losses, groups)
        metrics |= {LOG_LOSS_SE: error} if np.isfinite(error) else {}  # of one prompt nothing is known
    for label, name in enumerate(LABELS):
        if (y == label).any():
            metrics[f"val/log_loss_{name}"] = float(losses[y == label].mean())
    if n_tokens is not None:
        longest = np.asarray(n_tokens) >= np.quantile(n_tokens, 0.75)
        metrics["val/tokens_mean"] = float(np.mean(n_tokens))
        metrics["val/log_loss_longest_quarter"] = float(losses[longest].mean())
    return metrics
