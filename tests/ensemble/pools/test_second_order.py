"""The second-order pool: exact, symmetric, and a logistic pool where its products are held to nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.plan import Blend
from ensemble.pools.blend import BlendSpec, apply_blend, fit_blend
from ensemble.pools.log_pools import PRODUCT_MEMBERS
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import swap_sides, without_ties

SEEDS = st.integers(0, 2**32 - 1)
SPEC = BlendSpec("second_order", 0.01, floor=1e-2)


def battles(seed: int, members: int, rows: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Tables of members whose errors are the larger the surer another one is: products say what sums cannot."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(members, rows, 3)) * 1.2
    pulls = odds[:, :, 2] - odds[:, :, :2].mean(axis=2)
    lead = ((odds[:, :, 0] - odds[:, :, 1]) * (1 - 0.8 * np.tanh(pulls[::-1]))).mean(axis=0)
    truth = np.stack([lead, -lead, pulls.mean(axis=0)], axis=1)
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    p = np.exp(odds) / np.exp(odds).sum(axis=2, keepdims=True)
    return p, y, {f"m{j}": table for j, table in enumerate(p)}


def loss(blend: Blend, tables: dict[str, np.ndarray], y: np.ndarray) -> float:
    return float(log_loss_rows(apply_blend(blend, tables), y).mean())


def test_it_finds_what_a_logistic_pool_cannot():
    p, y, tables = battles(0, 2, 8000)
    half = np.arange(8000) < 4000
    held = {name: table[~half] for name, table in tables.items()}
    second, first = (fit_blend(spec, list(tables), p[:, half], y[half]) for spec in (SPEC, replace(SPEC, pool="logistic")))
    assert loss(second, held, y[~half]) < loss(first, held, y[~half]) - 0.01


def test_products_that_are_held_to_nothing_leave_the_logistic_pool():
    p, y, tables = battles(1, 3, 500)
    held = fit_blend(replace(SPEC, products=1e9), list(tables), p, y)
    np.testing.assert_allclose(
        apply_blend(held, tables), apply_blend(fit_blend(replace(SPEC, pool="logistic"), list(tables), p, y), tables), atol=1e-5
    )


def test_it_agrees_with_scikit_learn_on_both_orders_of_the_same_products():
    """Softmax regression on all features of both orders: by symmetry its best fit is ours."""
    from sklearn.linear_model import LogisticRegression

    p, y, tables = battles(2, 2, 4000)
    blend = fit_blend(BlendSpec("second_order", 1e-5, floor=1e-2, products=1.0), list(tables), p, y)
    both, labels = np.concatenate([p, swap_sides(p)], axis=1), np.concatenate([y, np.array([1, 0, 2])[y]])
    logs = np.log(0.99 * both + 0.01 / 3)
    u, e = (logs[:, :, 0] - logs[:, :, 1]).T, (logs[:, :, 2] - logs[:, :, :2].mean(axis=2)).T
    first, second = np.triu_indices(2)
    odd = (u[:, :, None] * e[:, None, :]).reshape(len(u), -1)
    x = np.hstack([*logs, odd, u[:, first] * u[:, second], e[:, first] * e[:, second]])
    peer = LogisticRegression(C=1e4, max_iter=4000).fit(x / x.std(axis=0), labels).predict_proba(x / x.std(axis=0))
    ours = apply_blend(blend, {f"m{j}": table for j, table in enumerate(both)})
    np.testing.assert_allclose(ours, peer, atol=0.02)
    assert log_loss_rows(ours, labels).mean() == pytest.approx(log_loss_rows(peer, labels).mean(), abs=2e-4)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_an_exchange_of_a_and_b_exchanges_the_result(seed, ties):
    p, y, _ = battles(seed, 3, 200)
    p = p if ties else without_ties(p)
    y = y if ties else y % 2
    tables, swapped = ({f"m{j}": table for j, table in enumerate(some)} for some in (p, swap_sides(p)))
    blend = fit_blend(replace(SPEC, ties=ties), list(tables), p, y)
    mixed = apply_blend(blend, tables)
    np.testing.assert_allclose(apply_blend(blend, swapped), swap_sides(mixed), atol=1e-12)
    np.testing.assert_allclose(mixed.sum(axis=1), 1)
    assert ties or mixed[:, 2].max() == 0


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_order_of_members_does_not_matter(seed):
    p, y, tables = battles(seed, 3, 200)
    order = np.random.default_rng(seed).permutation(3)
    blends = fit_blend(SPEC, list(tables), p, y), fit_blend(SPEC, [f"m{j}" for j in order], p[order], y)
    np.testing.assert_allclose(*(apply_blend(blend, tables) for blend in blends), atol=1e-5)


def test_of_many_members_the_most_influential_have_products():
    p, y, tables = battles(3, PRODUCT_MEMBERS + 3, 600)
    noise = np.full((2, 600, 3), 1 / 3)
    p = np.concatenate([noise, p])
    names = ["even", "also even", *tables]
    blend = fit_blend(SPEC, names, p, y)
    assert blend.products is not None
    assert len(blend.products.members) == PRODUCT_MEMBERS
    assert not {"even", "also even"} & set(blend.products.members)
    assert np.isfinite(apply_blend(blend, dict(zip(names, p, strict=True)))).all()


def test_a_position_bias_is_found_where_it_is_asked_for():
    p, y, tables = battles(4, 2, 2000)
    y[:800] = 0
    blend = fit_blend(replace(SPEC, position_bias=True), list(tables), p, y)
    assert blend.biases[0] > 0.1
    assert loss(blend, tables, y) < loss(fit_blend(SPEC, list(tables), p, y), tables, y)


def test_a_blend_is_the_same_after_it_was_written():
    p, y, tables = battles(5, 3, 300)
    blend = fit_blend(SPEC, list(tables), p, y)
    again = Blend.model_validate_json(blend.model_dump_json())
    np.testing.assert_array_equal(apply_blend(again, tables), apply_blend(blend, tables))
