"""The standard error of a mean, of independent rows and of rows that share a prompt; metrics of two outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from zoo.scores.metric_names import ACCURACY
from zoo.scores.metrics import mean_and_error, score_metrics, standard_error, uniform_loss


def test_the_clustered_standard_error_counts_copies_of_a_prompt_once():
    losses = np.random.default_rng(0).normal(size=400)
    alone = standard_error(losses, np.arange(400))
    copied = standard_error(np.repeat(losses, 5), np.repeat(np.arange(400), 5))
    assert copied == pytest.approx(alone)
    assert alone == pytest.approx(losses.std(ddof=1) / 20)


def test_without_groups_every_row_is_its_own():
    losses = np.random.default_rng(1).normal(size=50)
    assert mean_and_error(losses) == pytest.approx(mean_and_error(losses, np.arange(50)))


@pytest.mark.parametrize(("values", "groups"), [([0.7], None), ([0.7, 0.9], [3, 3])])
def test_one_row_or_one_prompt_says_nothing_of_the_spread(values, groups):
    mean, error = mean_and_error(np.array(values), None if groups is None else np.array(groups))
    assert mean == pytest.approx(np.mean(values))
    assert math.isnan(error)


TABLES = arrays(np.float64, (30, 3), elements=st.floats(0.01, 1))


@settings(max_examples=25)
@given(TABLES, st.integers(0, 2**30 - 1))
def test_without_ties_every_metric_is_of_a_and_b_alone(table: np.ndarray, winners: int) -> None:
    """Whatever the model gave a tie, it is a problem of two outcomes: scikit-learn and a logistic regression say the same."""
    p, y = table / table.sum(axis=1, keepdims=True), np.array([winners >> row & 1 for row in range(30)])
    metrics, b = score_metrics(p, y, ties=False), p[:, 1] / (p[:, 0] + p[:, 1])
    assert metrics["val/log_loss"] == pytest.approx(log_loss(y, b, labels=[0, 1]), rel=1e-9)
    assert metrics["baseline/log_loss_uniform"] == math.log(2) == pytest.approx(uniform_loss(ties=False))
    sure = 2 * np.abs(b - 0.5)  # what the loss differs by from that of an even row, to first order: nine digits of it count
    assume(not ((sure > 1e-10) & (sure < 1e-8)).any())
    even = sure <= 1e-10
    assert metrics[ACCURACY] == pytest.approx(((b > 0.5) == y)[~even].sum() / 30 + even.sum() / 60)
    assert metrics["val/refinement"] <= min(metrics["baseline/log_loss_prior"], metrics["val/log_loss"]) + 1e-4
    halved = np.column_stack([p[:, :2] / 2, 1 - p[:, :2].sum(axis=1) / 2])
    assert score_metrics(halved, y, ties=False) == pytest.approx(metrics, abs=1e-6), "p_tie says nothing"


def test_recalibration_of_two_outcomes_is_a_logistic_regression() -> None:
    """Platt scaling on the log odds, as scikit-learn fits it without a penalty."""
    rng = np.random.default_rng(0)
    odds = rng.normal(size=500)
    y = (rng.random(500) < 1 / (1 + np.exp(-(0.5 * odds + 0.3)))).astype(int)
    b = 1 / (1 + np.exp(-odds))
    fit = LogisticRegression(C=1e9, tol=1e-10).fit(odds[:, None], y)
    expected = log_loss(y, fit.predict_proba(odds[:, None]))
    table = np.column_stack([(1 - b) / 2, b / 2, np.full(500, 0.5)])
    assert score_metrics(table, y, ties=False)["val/refinement"] == pytest.approx(expected, abs=1e-6)
