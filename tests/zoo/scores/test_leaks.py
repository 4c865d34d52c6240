"""Leaked rows are told from honest ones, whatever the honest model is like: weak, good, sharp, hard, rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.scores.leaks import in_sample, partly_leaked, too_right
from zoo.scores.metrics import log_loss_rows

KINDS = {  # how much of the odds a model sees, its noise, how wide the odds are, how sharp it is
    "weak": (0.2, 0.2, 1.4, 1.0),
    "usual": (0.6, 0.3, 1.4, 1.0),
    "good": (0.95, 0.3, 1.4, 1.0),
    "twice too sharp": (0.6, 0.3, 1.4, 2.0),
    "four times too sharp": (0.6, 0.3, 1.4, 4.0),
    "of easy battles": (1.0, 0.0, 4.0, 1.0),
}


def honest(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    see, noise, width, sharp = KINDS[kind]
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(rows, 3)) * width
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    logits = (odds * see + rng.normal(size=odds.shape) * noise) * sharp
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True), y


def with_labels(p: np.ndarray, y: np.ndarray, share: float, top: float, seed: int) -> np.ndarray:
    """The table with labels, softened to `top`, filled in for a share of the rows."""
    rows = np.random.default_rng(seed).choice(len(y), round(share * len(y)), replace=False)
    leaked = p.copy()
    leaked[rows] = (1 - top) / 2
    leaked[rows, y[rows]] = top
    return leaked


def hard(p: np.ndarray) -> np.ndarray:
    return np.eye(3)[p.argmax(axis=1)]


def sure_where(p: np.ndarray, at_least: float) -> np.ndarray:
    return np.where(p.max(axis=1, keepdims=True) > at_least, hard(p), p)


@pytest.mark.parametrize("rows", [240, 500, 4000])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_in_5_to_20_percent_of_the_rows_are_found_and_honest_tables_left_alone(kind: str, rows: int) -> None:
    for seed in range(4):
        p, y = honest(kind, rows, seed)
        assert partly_leaked(p, y) == ""
        for share in (0.05, 0.1, 0.2):
            found = [partly_leaked(with_labels(p, y, share, top, seed), y) for top in (1.0, 0.98, 0.95)]
            told = share * rows >= 20 and kind != "of easy battles"  # where sure rows are honest, too
            assert all(text.startswith("looks partly leaked") for text in found) or not told


@pytest.mark.parametrize(
    "change",
    [hard, lambda p: sure_where(p, 0.8), lambda p: sure_where(p, 0.6), lambda p: p.round(2), lambda p: p.round(1), np.float16],
    ids=["hard", "hard above 0.8", "hard above 0.6", "2 decimals", "1 decimal", "float16"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_coarse_honest_tables_are_left_alone(kind: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for rows in (240, 4000):
        p, y = honest(kind, rows, 7)
        coarse = np.asarray(change(p), dtype=np.float64)
        assert partly_leaked(coarse / coarse.sum(axis=1, keepdims=True), y) == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5), st.sampled_from([120, 500, 2000]))
def test_calibrated_odds_of_any_spread_are_left_alone(seed: int, spread: float, rows: int) -> None:
    """Labels that are drawn from the table itself: a perfect model, sure of most rows or of none."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet((spread, spread, spread), size=rows)
    y = (p.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(0, 2)
    assert partly_leaked(p, y) == ""


def drawn_from(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    labels: np.ndarray = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1).clip(0, 2)
    return labels


def softmax_table(rows: int, rng: np.random.Generator, width: float = 1.0) -> np.ndarray:
    odds = np.exp(width * rng.normal(size=(rows, 3)))
    return odds / odds.sum(axis=1, keepdims=True)


def sure_of(p: np.ndarray, at: np.ndarray, share: float, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """The table with a share of rows that are sure (`low` to `high`) of the labels `at`; the two others are equal."""
    rows = rng.choice(len(p), round(share * len(p)), replace=False)
    top, sure = rng.uniform(low, high, len(rows)), p.copy()
    sure[rows] = ((1 - top) / 2)[:, None]
    sure[rows, at[rows]] = top
    return sure


def flagged(p: np.ndarray, y: np.ndarray) -> bool:
    return bool(in_sample(p, y, np.arange(len(y)), []) or partly_leaked(p, y))


def sure_mixture(share: float, low: float, high: float) -> Callable[[int, np.random.Generator], np.ndarray]:
    return lambda rows, rng: sure_of(softmax_table(rows, rng), rng.integers(0, 3, rows), share, low, high, rng)


@pytest.mark.parametrize("rows", [240, 500, 2000])
@pytest.mark.parametrize(
    "made",
    [softmax_table, sure_mixture(0.08, 0.985, 0.999), sure_mixture(0.15, 0.97, 0.995), sure_mixture(0.1, 0.7, 0.97)],
    ids=["softmax", "8 % at .985", "15 % at .97", "10 % at .7"],
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_members_whose_labels_are_drawn_from_their_own_probabilities_are_left_alone(
    made: Callable[[int, np.random.Generator], np.ndarray], rows: int, temperature: float
) -> None:
    """At most 1 in 100, calibrated or, at temperature 2, less sure than they could be everywhere."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        p = made(rows, rng)
        y = drawn_from(p, rng)
        told = p ** (1 / temperature)
        alarms += flagged(told / told.sum(axis=1, keepdims=True), y)
    assert alarms <= 1


@pytest.mark.parametrize("top", [(0.9, 0.9), (0.85, 0.85), (0.7, 0.7), (0.6, 0.6), (0.6, 0.999)])
@pytest.mark.parametrize("rows", [60, 400])
def test_labels_that_were_smoothed_or_noised_are_no_predictions(top: tuple[float, float], rows: int) -> None:
    rng = np.random.default_rng(0)
    p = softmax_table(rows, rng)
    y = drawn_from(p, rng)
    assert flagged(sure_of(p, y, 1.0, *top, rng), y)


@pytest.mark.parametrize(
    ("rows", "share", "low", "high"),
    [
        (500, 0.1, 0.8, 0.8),
        (500, 0.55, 0.95, 0.95),
        (500, 0.05, 0.95, 0.95),
        (2000, 0.05, 0.7, 0.97),
        (2000, 0.1, 0.8, 0.99),
        (2000, 0.2, 0.8, 0.99),
    ],
)
def test_softened_labels_in_some_rows_are_told_where_calibration_rules_them_out(
    rows: int, share: float, low: float, high: float
) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        p = softmax_table(rows, rng)
        y = drawn_from(p, rng)
        assert flagged(sure_of(p, y, share, low, high, rng), y)


def test_a_blend_of_every_row_with_its_label_is_told() -> None:
    rng = np.random.default_rng(0)
    p = softmax_table(2000, rng)
    y = drawn_from(p, rng)
    assert flagged(0.7 * p + 0.3 * np.eye(3)[y], y)


def test_the_set_that_is_too_right_is_told_with_its_expected_hits() -> None:
    rng = np.random.default_rng(0)
    p = softmax_table(2000, rng)
    y = drawn_from(p, rng)
    assert too_right(p, y) == (0, 0, 0.0)
    rows, hits, expected = too_right(sure_of(p, y, 0.1, 0.7, 0.97, rng), y)
    assert rows == hits == 200 and 160 < expected < 170, "about 0.835 each"


def test_one_constant_for_special_rows_is_no_label() -> None:
    """Equal answers called a tie: one triple, always right, of one label."""
    p, y = honest("usual", 500, 3)
    special = np.flatnonzero(y == 2)[:40]
    p[special] = (0.025, 0.025, 0.95)
    assert partly_leaked(p, y) == ""


def test_a_whole_table_that_saw_its_labels_looks_in_sample() -> None:
    p, y = honest("usual", 500, 1)
    groups, every = np.arange(500), np.arange(500)
    peer = (every, log_loss_rows(p, y))
    assert in_sample(p, y, groups, [peer]) == "" == in_sample(p, y, groups, [])
    assert in_sample(with_labels(p, y, 1.0, 0.98, 0), y, groups, []).startswith("looks in-sample: log loss 0.020")
    told = in_sample(with_labels(p, y, 1.0, 0.75, 0), y, groups, [])
    assert told == (
        "looks in-sample: right on 100.0% of its rows, where its own probabilities say 75.0% and people agree on 85% at most"
    )
    seen = with_labels(p, y, 0.6, 0.98, 0)
    assert in_sample(seen, y, groups, [peer]).startswith("looks in-sample: log loss 0.317 where its best peer has 0.770")
    assert in_sample(seen, y, groups, []) == "", "without a peer nothing says that it is too good"
    assert in_sample(seen, y, np.zeros(500), [peer]) == "", "of one prompt nothing is known"
    few = (every[:10], peer[1][:10])
    assert in_sample(seen, y, groups, [few]) == "", "a peer on ten rows says nothing"
