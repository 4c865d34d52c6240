"""Gates and knapsacks: rows are bought where they pay, never beyond the seconds, never judged on their own fits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.members.table import balanced_folds
from ensemble.plan import FEATURES
from ensemble.pools.blend import BlendSpec
from ensemble.pools.crossfit import Evaluator, choose_by_other_folds, cross_fit
from ensemble.pools.gate import divergence, fit_gate, gain_out_of_fold, gate_features, mask_of, predicted_gain, spend
from ensemble.search.coverage import cover, pattern_rows
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import swap_sides

ROWS = 3000


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A cheap member that is sure on half of the rows and blind on the others, and an expensive one that sees all."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(ROWS, 3)) * 1.8
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    blind = rng.random(ROWS) < 0.5
    logits = np.stack([np.where(blind[:, None], 0.15 * odds, odds), odds + 0.3 * rng.normal(size=odds.shape)])
    p = np.exp(logits)
    return p / p.sum(axis=2, keepdims=True), y, blind, rng.lognormal(7, 0.5, ROWS)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 100))
def test_the_knapsack_spends_no_more_than_there_is_and_takes_the_best_a_second(seed, budget):
    rng = np.random.default_rng(seed)
    gain, seconds = rng.normal(size=60), rng.uniform(0.1, 3, 60)
    order, count = spend(gain, seconds, budget)
    seen = mask_of(order[:count], 60)
    assert seconds[seen].sum() <= budget + 1e-6
    if seen.any() and not seen.all():
        assert (gain / seconds)[seen].min() >= (gain / seconds)[~seen].max()
        assert seconds[seen].sum() + seconds.max() >= budget - 1e-6


def test_a_gate_learns_where_the_next_member_pays():
    p, _, blind, characters = problem()
    gain = divergence(p[1], p[0])
    train = np.arange(ROWS) < ROWS // 2
    gate = fit_gate(["cheap"], p[0][train], characters[train], gain[train])
    predicted = predicted_gain(gate, p[0][~train], characters[~train])
    assert gate.features == FEATURES
    assert gate_features(p[0], characters).shape == (ROWS, len(FEATURES))
    assert predicted[blind[~train]].mean() > predicted[~blind[~train]].mean() + 0.1


def test_gains_out_of_fold_are_those_of_gates_fitted_to_the_other_folds():
    rng = np.random.default_rng(4)
    p, folds = rng.dirichlet((1, 1, 1), 500), rng.integers(0, 4, 500)
    gain = p[:, 2] + rng.normal(size=500)
    for characters in (rng.lognormal(7, 1, 500), np.zeros(500), np.where(folds == 1, 3000.0, 70.0)):
        found = gain_out_of_fold(p, characters, gain, folds)
        for fold in range(4):
            held = folds == fold
            gate = fit_gate((), p[~held], characters[~held], gain[~held])
            np.testing.assert_allclose(found[held], predicted_gain(gate, p[held], characters[held]), atol=1e-9)


def test_a_gate_does_not_care_which_side_is_called_a():
    p, _, _, characters = problem()
    np.testing.assert_allclose(gate_features(p[0], characters), gate_features(swap_sides(p[0]), characters))


def test_the_divergence_is_the_expected_gain_if_the_fuller_blend_is_right():
    rng = np.random.default_rng(1)
    after, before = np.tile([0.6, 0.3, 0.1], (20_000, 1)), np.tile([0.3, 0.3, 0.4], (20_000, 1))
    y = rng.choice(3, 20_000, p=after[0])
    realised = log_loss_rows(before, y) - log_loss_rows(after, y)
    assert divergence(after, before)[0] == pytest.approx(realised.mean(), abs=0.02)


def test_half_the_seconds_on_the_right_rows_buy_far_more_than_half_the_gain():
    p, y, blind, characters = problem()
    spec = BlendSpec("log", floor=1e-4)
    evaluator = Evaluator(["cheap", "dear"], p, y, balanced_folds(np.arange(ROWS)))
    seconds = np.ones((2, ROWS))
    covered = cover(evaluator, spec, characters, seconds, [0], [(1, ROWS / 2)])
    none, full = (log_loss_rows(evaluator.oof(s, spec), y).mean() for s in ((0,), (0, 1)))
    assert covered.seen[1].mean() == pytest.approx(0.5, abs=0.01)
    assert blind[covered.seen[1]].mean() > 0.7
    assert none - covered.losses.mean() > 0.65 * (none - full)


def test_no_seconds_cover_no_rows_and_all_seconds_all():
    p, y, _, characters = problem()
    spec = BlendSpec("log", floor=1e-4)
    evaluator = Evaluator(["cheap", "dear"], p, y, balanced_folds(np.arange(ROWS)))
    for seconds, subset in ((0.0, (0,)), (float(ROWS), (0, 1))):
        covered = cover(evaluator, spec, characters, np.ones((2, ROWS)), [0], [(1, seconds)])
        np.testing.assert_allclose(covered.losses, log_loss_rows(evaluator.oof(subset, spec), y))


def test_patterns_part_the_rows():
    masks = {1: np.array([True, True, False, False]), 2: np.array([True, False, True, False])}
    patterns = pattern_rows([0], masks, 4)
    assert set(patterns) == {(0,), (0, 1), (0, 2), (0, 1, 2)}
    np.testing.assert_array_equal(sum(rows.astype(int) for rows in patterns.values()), np.ones(4))


def test_a_fold_is_predicted_without_its_own_labels():
    p, y, _, _ = problem()
    folds = balanced_folds(np.arange(ROWS))
    lied = y.copy()
    lied[folds == 2] = (lied[folds == 2] + 1) % 3
    few = [BlendSpec("linear"), BlendSpec("log", floor=1e-4)]
    for spec in few:
        honest, fooled = (cross_fit(spec, ["a", "b"], p, labels, folds)[folds == 2] for labels in (y, lied))
        np.testing.assert_allclose(honest, fooled, atol=1e-6)  # a fit starts where the last one ended


def test_the_choice_between_tables_is_made_on_the_other_folds():
    rng = np.random.default_rng(0)
    y, folds = rng.integers(3, size=500), np.arange(500) % 5
    good, bad = np.full((500, 3), 1 / 3), np.tile([0.8, 0.1, 0.1], (500, 1))
    losses, best = choose_by_other_folds([bad, good], y, folds)
    assert best == 1
    np.testing.assert_allclose(losses, np.log(3))


def test_threads_may_share_an_evaluator_that_forgets():
    """Trials side by side ask for the same few tables while the least recently used are dropped."""
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(3), size=(3, 60)), rng.integers(3, size=60)
    evaluator = Evaluator(["a", "b", "c"], p, y, np.arange(60) % 3, kept=2)
    spec = BlendSpec("linear")
    singles = [evaluator.oof((j,), spec).copy() for j in range(3)]
    asked = [int(j) for j in rng.integers(3, size=600)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda j: evaluator.oof((j,), spec), asked))
    assert all(np.array_equal(table, singles[j]) for j, table in zip(asked, found, strict=True))
