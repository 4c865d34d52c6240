"""Recalibration: identity where nothing is known, the truth where much is, and no harm in between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ensemble.members.table import balanced_folds
from ensemble.pools import calibration
from ensemble.pools.calibration import (
    FEWEST_ROWS,
    SHARPENING,
    STRENGTH,
    Numbers,
    apply_numbers,
    blend_by_plan,
    chosen_by_other_folds,
    equal_weights,
    fit_calibration,
    fit_numbers,
    is_better,
)
from ensemble.pools.patterns import blend_rows
from tests.helpers.plans import PRIOR, plan_member, plan_of, plan_pool
from tests.helpers.shifts import calibration as calibrated_by
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import swap_sides


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def shifted(rows: int, temperature: float, bias: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A blend (rows, 3), the truth after a shift of its logits, and labels drawn of that."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(size=(rows, 3)))
    truth = softmax(np.log(p) / temperature + [0, 0, bias])
    return p, truth, (np.log(truth) + rng.gumbel(size=p.shape)).argmax(axis=1)


def divergence(truth: np.ndarray, p: np.ndarray) -> float:
    return float((truth * (np.log(truth) - np.log(p))).sum(axis=1).mean())


triples = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).dirichlet([0.5] * 3, 30) + 1e-9)
numbers = st.builds(Numbers, st.floats(0.05, 20), st.floats(-5, 5), st.floats(0, 1))


@settings(max_examples=50, deadline=None)
@given(triples, triples, numbers)
def test_what_comes_out_are_probabilities_and_exchanging_a_and_b_exchanges_them(p, equal, found):
    p, equal = p / p.sum(axis=1, keepdims=True), equal / equal.sum(axis=1, keepdims=True)
    out = apply_numbers(found, p, equal)
    np.testing.assert_allclose(out.sum(axis=1), 1)
    assert (out >= 0).all()
    np.testing.assert_allclose(apply_numbers(found, swap_sides(p), swap_sides(equal)), swap_sides(out))
    two = apply_numbers(found, p, equal, ties=False)
    assert found == Numbers() or (two[:, 2] == 0).all()


@pytest.mark.parametrize("temperature", [0.5, 1.6])
@pytest.mark.parametrize("reweighted", [False, True])
def test_the_fit_is_the_least_of_its_objective(temperature, reweighted):
    """Against a general optimiser on the objective as it is written down."""
    p, _, y = shifted(300, temperature, 0.3)
    equal = shifted(300, 1.0, 0.0, seed=1)[0]
    found = fit_numbers(p, equal, y, reweighted=reweighted)
    slope = SHARPENING if temperature < 1 else STRENGTH

    def objective(x: np.ndarray) -> float:
        a, b, c = x
        q = softmax(a * np.log(p) + b * np.log(equal) + [0, 0, c])
        return float(log_loss_rows(q, y).sum() + (slope * ((a - 1) ** 2 + b**2) + STRENGTH * c**2) / 2)

    least = minimize(objective, [1.0, 0.0, 0.0], bounds=[(0, None), (0, None if reweighted else 0), (None, None)])
    slopes = np.array([1 - found.equal_share, found.equal_share]) / found.temperature
    np.testing.assert_allclose([*slopes, found.tie_bias], least.x, atol=2e-3)


def test_many_rows_find_the_shift_and_what_is_reported_is_what_fresh_rows_say():
    p, _, y = shifted(20_000, 1.8, -0.4)
    fitted = fit_calibration(p, p, y, np.arange(len(y)))
    assert fitted.kept and fitted.gain > 5 * fitted.gain_se
    assert fitted.numbers.temperature == pytest.approx(1.8, abs=0.1)
    assert fitted.numbers.tie_bias == pytest.approx(-0.4, abs=0.06)
    fresh, fresh_truth, _ = shifted(20_000, 1.8, -0.4, seed=9)
    gained = divergence(fresh_truth, fresh) - divergence(fresh_truth, apply_numbers(fitted.numbers, fresh, fresh))
    assert abs(gained - fitted.gain) < 3 * fitted.gain_se


@pytest.mark.slow
@pytest.mark.parametrize("rows", [50, 250])
def test_few_rows_do_not_hurt_where_nothing_has_shifted_and_gain_where_it_has(rows):
    """On the truth's own expectation, mean of 30 seeds; the worst of them is bounded too."""
    for temperature, bias, least, worst in ((1.0, 0.0, -0.003, -0.015), (2.0, 0.0, 0.02, -0.005)):
        gains = []
        for seed in range(30):
            p, _, y = shifted(rows, temperature, bias, seed=seed)
            found = fit_calibration(p, p, y, np.arange(rows)).numbers
            fresh, fresh_truth, _ = shifted(2_000, temperature, bias, seed=1_000 + seed)
            gains.append(divergence(fresh_truth, fresh) - divergence(fresh_truth, apply_numbers(found, fresh, fresh)))
        assert np.mean(gains) > least and min(gains) > worst


def test_a_blend_whose_weights_went_wrong_goes_over_to_equal_weights():
    rng = np.random.default_rng(3)
    odds = rng.normal(size=(3_000, 3))
    equal, wrong = softmax(odds), softmax(rng.normal(size=odds.shape) * 2)
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    fitted = fit_calibration(wrong, equal, y, np.arange(len(y)))
    assert fitted.kept and fitted.numbers.equal_share > 0.9 and fitted.numbers.temperature == pytest.approx(1, abs=0.1)


def test_a_folds_labels_do_not_choose_by_what_they_are_judged():
    """Of noise, the choice that all rows make promises more than what is reported; a fold's own losses have no say in it."""
    groups, flattered = np.arange(100), []
    folds = np.stack([balanced_folds(groups, repeat=repeat) for repeat in (1, 2)])
    for seed in range(40):
        plain, mixed = np.random.default_rng(seed).normal(1, 0.1, (2, 2, 100))
        honest = chosen_by_other_folds(plain, mixed, folds, groups)
        best = mixed if is_better(mixed, plain, groups) else plain
        flattered.append(honest.mean() - best.mean())
        held = folds[0] == 2
        other = mixed.copy()
        other[:, held] += 5.0  # as if it had gone badly there, in every division
        again = chosen_by_other_folds(plain, other, folds, groups)
        was_mixed, is_mixed = (honest[0, held] == mixed[0, held]).all(), (again[0, held] == other[0, held]).all()
        assert was_mixed == is_mixed
    assert np.mean(flattered) > 0.001


def test_what_surely_hurts_out_of_fold_is_not_taken(monkeypatch):
    p, _, y = shifted(60, 1.0, 0.0)
    fitted = fit_calibration(p, p, y, np.arange(60))
    assert fitted.gain < -2 * fitted.gain_se, "these rows are of that sort"
    assert not fitted.kept and fitted.numbers == Numbers()
    np.testing.assert_array_equal(fitted.after, fitted.before)
    monkeypatch.setattr(calibration, "SURELY", 10.0)
    taken = fit_calibration(p, p, y, np.arange(60))
    assert taken.kept and taken.gain == fitted.gain, "what it would have changed is said all the same"


def test_too_few_rows_are_refused():
    p, _, y = shifted(FEWEST_ROWS - 1, 1.0, 0.0)
    with pytest.raises(ValueError, match=f"need {FEWEST_ROWS} rows"):
        fit_calibration(p, p, y, np.arange(len(y)))


def test_equal_weights_are_of_the_members_that_have_scored_a_row():
    a, b = np.tile([0.6, 0.3, 0.1], (3, 1)), np.full((3, 3), np.nan)
    b[0] = [0.2, 0.5, 0.3]
    found = equal_weights({"a": a, "b": b}, {"a": np.array([True, True, False]), "b": np.array([True, False, False])})
    np.testing.assert_allclose(found, [[0.4, 0.4, 0.2], [0.6, 0.3, 0.1], [1 / 3] * 3], atol=1e-4)


def test_a_plan_calibrates_what_its_members_say_and_leaves_the_prior_alone():
    plan = plan_of([plan_member("a"), plan_member("b")], [plan_pool(("a", "b"), 1.0), plan_pool(("a",), 1.1)])
    p = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [np.nan] * 3])
    has = {"a": np.array([True, True, False]), "b": np.array([True, False, False])}
    arguments = {"a": p, "b": np.where(has["b"][:, None], p, np.nan)}, has
    bare = blend_by_plan(plan, *arguments, as_planned=np.ones(3, dtype=bool))
    same = blend_rows(plan.pools, *arguments, as_planned=np.ones(3, dtype=bool), prior=plan.prior)
    np.testing.assert_array_equal(bare.p, same.p)
    found = blend_by_plan(
        plan.model_copy(update={"calibration": calibrated_by(temperature=2.0)}), *arguments, as_planned=np.ones(3, dtype=bool)
    )
    np.testing.assert_allclose(found.p[:2], np.sqrt(bare.p[:2]) / np.sqrt(bare.p[:2]).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.p[2], PRIOR)
