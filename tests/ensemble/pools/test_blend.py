"""Pools: exact where they say so, symmetric, and indifferent to order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ensemble.pools.blend import (
    GREEDY,
    RIDGED_LOG,
    RIDGED_LOGISTIC,
    SPECS,
    BlendSpec,
    apply_blend,
    fit_blend,
    fit_temperature,
    least_shares,
)
from ensemble.pools.linear import fit_linear
from ensemble.pools.log_pools import BIAS_PRECISION
from ensemble.pools.softmax import LEAST_RIDGE, Design, fit_softmax, softmax_of
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import swap_sides, without_ties

SEEDS = st.integers(0, 2**32 - 1)
EVERY = (*SPECS, GREEDY, RIDGED_LOG, RIDGED_LOGISTIC)


def battles(seed: int, members: int, rows: int, *, zeros: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from known odds, and tables of members that see these odds through noise of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, 3))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    logits = truth * rng.uniform(0.3, 2, (members, 1, 1)) + rng.normal(size=(members, rows, 3)) * rng.uniform(
        0.2, 1.5, (members, 1, 1)
    )
    p = np.exp(logits)
    if zeros:
        p[rng.random(p.shape) < 0.1] = 0.0
        p[:, :, 2] += p.sum(axis=2) == 0
    return p / p.sum(axis=2, keepdims=True), y


def named(p: np.ndarray) -> dict[str, np.ndarray]:
    return {f"m{j}": table for j, table in enumerate(p)}


def loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(log_loss_rows(p, y).mean())


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 8), st.integers(2, 200), st.booleans(), st.sampled_from([0.0, 0.02, 0.5]))
def test_linear_weights_lie_on_the_simplex_and_the_certificate_closes(seed, members, rows, zeros, prior):
    p, y = battles(seed, members, rows, zeros=zeros)
    fit = fit_linear(p[:, np.arange(rows), y], prior=prior)
    assert (fit.weights >= 0).all()
    assert fit.weights.sum() == pytest.approx(1)
    assert 0 <= fit.gap < 1e-6


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 6), st.integers(10, 150))
def test_an_independent_solver_finds_nothing_beyond_the_certificate(seed, members, rows):
    p, y = battles(seed, members, rows)
    true = p[:, np.arange(rows), y]
    fit = fit_linear(true)
    other = minimize(
        lambda w: -np.log(w @ true).mean(),
        np.full(members, 1 / members),
        jac=lambda w: -(true / (w @ true)).mean(axis=1),
        bounds=[(1e-12, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert fit.loss - fit.gap <= other.fun + 1e-9
    assert fit.loss <= other.fun + 1e-6


def test_a_certificate_from_weights_that_are_not_the_best_is_never_too_small():
    p, y = battles(5, 4, 300)
    true = p[:, np.arange(300), y]
    best = fit_linear(true)
    rough = fit_linear(true, tolerance=1.0)
    assert rough.loss - rough.gap <= best.loss + 1e-12


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 5), st.sampled_from([BlendSpec("linear"), BlendSpec("linear", tempered=True)]))
def test_the_linear_pool_is_never_worse_than_the_best_single_on_the_fitting_rows(seed, members, spec):
    p, y = battles(seed, members, 120)
    blend = fit_blend(spec, list(named(p)), p, y)
    assert sum(blend.weights) == pytest.approx(1)
    assert min(blend.weights) >= 0
    assert loss(apply_blend(blend, named(p)), y) <= min(loss(table, y) for table in p) + 1e-6


@pytest.mark.parametrize("spec", EVERY, ids=str)
def test_every_pool_copes_with_exact_zeros(spec):
    p, y = battles(3, 4, 400, zeros=True)
    blend = fit_blend(spec, list(named(p)), p, y)
    mixed = apply_blend(blend, named(p))
    assert np.isfinite(mixed).all()
    np.testing.assert_allclose(mixed.sum(axis=1), 1)
    assert loss(mixed, y) <= np.log(3) + 1e-6


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(EVERY), st.sets(st.integers(0, 2), min_size=1, max_size=2), st.integers(3, 200))
def test_a_label_without_examples_keeps_its_laplace_share_in_every_row(seed, spec, missing, rows):
    """Whatever the members say of it, and though A and B stay alike."""
    p, y = battles(seed, 3, 3 * rows, zeros=True)
    kept = ~np.isin(y, list(missing))
    if not kept.any():
        return
    share = 1 / (kept.sum() + 3)
    blend = fit_blend(spec, list(named(p)), p[:, kept], y[kept])
    mixed = apply_blend(blend, named(p))
    np.testing.assert_allclose(mixed.sum(axis=1), 1)
    for label in missing:
        assert mixed[:, label].min() >= share * (1 - 1e-12)
    np.testing.assert_allclose(swap_sides(mixed), apply_blend(blend, named(swap_sides(p))), atol=1e-9)
    without = apply_blend(blend.model_copy(update={"least": (0.0, 0.0, 0.0)}), named(p))
    assert np.abs(mixed - without).max() <= 3 * share, "and no more than that"


def test_labels_that_occur_keep_nothing_aside():
    assert least_shares(np.array([0, 1, 2, 2])) == (0, 0, 0)
    assert least_shares(np.array([0, 1])) == (0, 0, 1 / 5)
    assert least_shares(np.array([0, 2])) == (1 / 5, 1 / 5, 0)
    assert least_shares(np.array([0])) == (1 / 4, 1 / 4, 1 / 4)
    p, y = battles(0, 2, 100)
    assert fit_blend(RIDGED_LOG, list(named(p)), p, y).least == (0, 0, 0)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(EVERY))
def test_exchanging_a_and_b_everywhere_exchanges_the_result(seed, spec):
    p, y = battles(seed, 3, 150)
    swapped_y = np.array([1, 0, 2])[y]
    blend = fit_blend(spec, list(named(p)), p, y)
    swapped = fit_blend(spec, list(named(p)), swap_sides(p), swapped_y)
    np.testing.assert_allclose(swap_sides(apply_blend(blend, named(p))), apply_blend(swapped, named(swap_sides(p))), atol=1e-4)
    np.testing.assert_allclose(swap_sides(apply_blend(blend, named(p))), apply_blend(blend, named(swap_sides(p))), atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(EVERY))
def test_the_order_of_rows_and_of_members_does_not_matter(seed, spec):
    p, y = battles(seed, 3, 150)
    rng = np.random.default_rng(seed)
    rows, members = rng.permutation(150), rng.permutation(3)
    first = apply_blend(fit_blend(spec, ["m0", "m1", "m2"], p, y), named(p))
    again = fit_blend(spec, [f"m{j}" for j in members], p[members][:, rows], y[rows])
    np.testing.assert_allclose(apply_blend(again, named(p)), first, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_member_twice_is_as_good_as_once(seed):
    p, y = battles(seed, 3, 200)
    twice = np.concatenate([p, p[:1]])
    for spec in (BlendSpec("linear"), BlendSpec("log", floor=1e-4), BlendSpec("logistic", floor=1e-4)):
        once = apply_blend(fit_blend(spec, list(named(p)), p, y), named(p))
        np.testing.assert_allclose(apply_blend(fit_blend(spec, list(named(twice)), twice, y), named(twice)), once, atol=1e-3)


def test_the_log_pool_agrees_with_a_general_optimiser():
    p, y = battles(11, 3, 500)
    blend = fit_blend(BlendSpec("log", floor=1e-4), list(named(p)), p, y)
    logs = np.log((1 - 1e-4) * p + 1e-4 / 3)

    def objective(x: np.ndarray) -> float:
        z = np.tensordot(x[:3], logs, axes=1) + np.array([0, 0, x[3]])
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(500), y]).mean())

    other = minimize(
        objective, np.full(4, 0.3), bounds=[(0, None)] * 3 + [(None, None)], method="L-BFGS-B", options={"ftol": 1e-14}
    )
    assert loss(apply_blend(blend, named(p)), y) == pytest.approx(other.fun, abs=1e-6)


def test_the_logistic_pool_agrees_with_scikit_learn_on_both_orders():
    from sklearn.linear_model import LogisticRegression

    p, y = battles(13, 2, 3000)
    floor, ridge = 1e-4, 1e-4
    blend = fit_blend(BlendSpec("logistic", ridge, floor=floor), list(named(p)), p, y)
    logs = np.log((1 - floor) * p + floor / 3)
    both = np.concatenate([np.hstack(list(logs)), np.hstack(list(swap_sides(logs)))])
    labels = np.concatenate([y, np.array([1, 0, 2])[y]])
    peer = LogisticRegression(C=1e6, max_iter=2000).fit(both, labels)
    ours = apply_blend(blend, named(p))
    np.testing.assert_allclose(ours, peer.predict_proba(np.hstack(list(logs))), atol=0.01)
    assert loss(ours, y) == pytest.approx(loss(peer.predict_proba(np.hstack(list(logs))), y), abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 3), st.sampled_from([0.0, 0.01]))
def test_a_bias_stays_finite_where_no_row_is_a_tie(seed, members, ridge):
    """An independent solver of the same objective, prior included, finds the same; ties get Laplace's share and little more."""
    p, y = battles(seed, members, 120)
    p, y = p[:, y < 2], y[y < 2]
    blend = fit_blend(BlendSpec("log", ridge, floor=1e-2), list(named(p)), p, y)
    logs = np.log(0.99 * p + 0.01 / 3)
    lead, pull = (logs[:, :, 0] - logs[:, :, 1]).T, (logs[:, :, 2] - (logs[:, :, 0] + logs[:, :, 1]) / 2).T

    def objective(x: np.ndarray) -> float:
        q = softmax_of(lead @ x[:-1], pull @ x[:-1] + x[-1])[np.arange(len(y)), y]
        prior = BIAS_PRECISION / len(y) * x[-1] ** 2 + ridge * ((x[:-1] - 1 / members) ** 2).sum()
        return -float(np.log(q).mean()) + prior / 2

    ours = np.append(blend.weights, blend.biases[2])
    found = minimize(objective, ours, bounds=[(0, None)] * members + [(None, None)], method="L-BFGS-B")
    assert found.fun >= objective(ours) - 1e-7
    assert -12 < blend.biases[2] < 0
    share = 1 / (len(y) + 3)
    ties = apply_blend(blend, named(p))[:, 2]
    assert (ties >= share).all() and ties.mean() < 1.5 * share


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 4), st.booleans(), st.sampled_from([0.0, 1e-3, 0.1]), st.sampled_from([1e-9, 1e-3]))
def test_no_parameters_beat_a_log_pool_by_more_than_its_certificate(seed, members, bounded, ridge, tolerance):
    """An independent solver from the best point known finds nothing below the bound; also where the fit stopped early."""
    p, y = battles(seed, members, 80)
    logs = np.log(0.99 * p + 0.01 / 3)
    lead, tie = (logs[:, :, 0] - logs[:, :, 1]).T, (logs[:, :, 2] - (logs[:, :, 0] + logs[:, :, 1]) / 2).T
    at, flags = np.arange(members), np.full(members, bounded)
    design = Design(lead, at, tie, at, np.full(members, 1 / members), np.ones(members), flags)
    fit = fit_softmax(design, y, ridge=ridge, tolerance=tolerance)

    def objective(x: np.ndarray) -> float:
        q = np.maximum(softmax_of(lead @ x, tie @ x)[np.arange(80), y], 1e-300)
        return -float(np.log(q).mean()) + (ridge + LEAST_RIDGE) / 2 * float(((x - 1 / members) ** 2).sum())

    limits = [(0, None) if bounded else (None, None)] * members
    other = minimize(objective, fit.parameters, bounds=limits, method="L-BFGS-B", options={"ftol": 1e-15})
    assert fit.objective == pytest.approx(objective(fit.parameters), abs=1e-12)
    assert other.fun >= fit.objective - fit.gap - 1e-12
    assert fit.gap <= tolerance


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(20000, 3))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    sharp = np.exp(2 * logits)
    assert fit_temperature(sharp / sharp.sum(axis=1, keepdims=True), y) == pytest.approx(2.0, abs=0.1)


def test_a_position_bias_is_found_only_where_it_is_asked_for():
    p, y = battles(17, 2, 4000)
    y[:1500] = 0
    fair = fit_blend(BlendSpec("log", floor=1e-4), list(named(p)), p, y)
    biased = fit_blend(BlendSpec("log", floor=1e-4, position_bias=True), list(named(p)), p, y)
    assert fair.biases[0] == fair.biases[1] == 0
    assert biased.biases[0] > 0.1
    assert loss(apply_blend(biased, named(p)), y) < loss(apply_blend(fair, named(p)), y)


# --- where no battle can be a tie -------------------------------------------------------------------------------------------

TWO = [replace(spec, ties=False) for spec in SPECS]


def two_outcomes(seed: int, members: int, rows: int, *, zeros: bool = False) -> tuple[np.ndarray, np.ndarray]:
    p, y = battles(seed, members, rows, zeros=zeros)
    kept = y < 2
    return without_ties(p[:, kept]), y[kept]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(TWO), st.booleans(), st.booleans())
def test_without_ties_a_blend_is_whole_finite_and_gives_none(seed, spec, zeros, bias):
    p, y = two_outcomes(seed, 3, 150, zeros=zeros)
    blend = fit_blend(replace(spec, position_bias=bias and spec.pool != "linear"), list(named(p)), p, y)
    mixed = apply_blend(blend, named(p))
    assert (mixed[:, 2] == 0).all() and np.isfinite(mixed).all() and (mixed >= 0).all()
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(TWO))
def test_without_ties_exchanging_a_and_b_exchanges_the_result(seed, spec):
    p, y = two_outcomes(seed, 3, 150)
    blend = fit_blend(spec, list(named(p)), p, y)
    exchanged = apply_blend(blend, named(swap_sides(p)))
    np.testing.assert_allclose(swap_sides(apply_blend(blend, named(p))), exchanged, atol=1e-12)
    again = fit_blend(spec, list(named(p)), swap_sides(p), 1 - y)
    np.testing.assert_allclose(apply_blend(again, named(swap_sides(p))), exchanged, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.01]), st.booleans())
def test_without_ties_the_log_pools_are_logistic_regressions(seed, ridge, bias):
    """An independent solver of the binary likelihood, in the log odds of A against B, finds nothing better."""
    p, y = two_outcomes(seed, 3, 200)
    floor, rows = 1e-2, np.arange(len(y))
    odds = np.log((1 - floor) * p[:, :, :2] + floor / 2)
    x = np.vstack([odds[:, :, 0] - odds[:, :, 1], *([np.ones((1, len(y)))] if bias else [])])
    sign = 1.0 - 2 * y

    def objective(w: np.ndarray, *, penalty: float = ridge) -> float:
        return float(np.logaddexp(0, -sign * (w @ x)).mean() + penalty / 2 * ((w[:3] - 1 / 3) ** 2).sum())

    for pool, least in (("log", 0.0), ("logistic", None)):
        spec = BlendSpec(pool, ridge, floor=floor, position_bias=bias, ties=False)
        blend = fit_blend(spec, list(named(p)), p, y)
        weights = np.array(blend.weights) if pool == "log" else np.array([matrix[0][0] * 2 for matrix in blend.coefficients])
        w = np.append(weights, blend.biases[0] - blend.biases[1]) if bias else weights
        found = minimize(objective, np.zeros(len(w)), bounds=[(least, None)] * 3 + [(None, None)] * bias, method="L-BFGS-B")
        assert objective(w) <= found.fun + 1e-7
        mine = -np.log(apply_blend(blend, named(p))[rows, y])
        np.testing.assert_allclose(mine.mean(), objective(w, penalty=0.0), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_without_ties_no_weights_of_a_linear_pool_are_better(seed):
    """Its uniform member gives a half to each side, not a third."""
    p, y = two_outcomes(seed, 3, 200)
    blend = fit_blend(BlendSpec("linear", ties=False), list(named(p)), p, y)
    true = np.vstack([p[:, np.arange(len(y)), y], np.full((1, len(y)), 0.5)])
    other = minimize(
        lambda w: -np.log(w @ true).mean(),
        np.full(4, 0.25),
        bounds=[(1e-12, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert loss(apply_blend(blend, named(p)), y) <= other.fun + 1e-5


def test_a_blend_of_battles_with_ties_is_written_as_it_always_was():
    p, y = battles(0, 2, 100)
    assert "ties" not in fit_blend(BlendSpec("log", floor=1e-4), list(named(p)), p, y).model_dump()
    assert fit_blend(BlendSpec("log", floor=1e-4, ties=False), list(named(p)), p, y * (y < 2)).model_dump()["ties"] is False
