"""Boosted trees: numpy gives what LightGBM gives, an exchange of the answers is exact, and rounds are chosen soberly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.members.table import balanced_folds
from ensemble.plan import LENGTH_FEATURES, TREE_FEATURES, Blend
from ensemble.pools.blend import RIDGED_LOGISTIC, BlendSpec, apply_blend, fit_blend
from ensemble.pools.boosting import numbers, tasks, train
from ensemble.pools.rounds import choose_rounds
from ensemble.pools.trees import evaluate, tree_features
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import swap_sides, without_ties

SEEDS = st.integers(0, 2**32 - 1)
TREES = BlendSpec("trees", parts=(RIDGED_LOGISTIC,), tree_rounds=(25, 15))


def battles(seed: int, rows: int = 3000, *, ties: bool = True) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Three members, of which the one to believe depends on how sure the first is; steps, not slopes."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(3, rows, 3)) * 1.3
    believed = np.where(np.abs(odds[0, :, 0] - odds[0, :, 1]) > 1.5, 1, 2)
    truth = np.where((believed == 1)[:, None], 1.6 * odds[1], -0.6 * odds[2])
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    p = np.exp(odds) / np.exp(odds).sum(axis=2, keepdims=True)
    if not ties:
        p, y = without_ties(p), y % 2
    return p, y, {f"m{j}": table for j, table in enumerate(p)}


def lengths_of(y: np.ndarray, seed: int) -> np.ndarray:
    """Lengths (rows, 3) of prompts and answers; the winner's answer is the longer one more often than not."""
    rng = np.random.default_rng(seed)
    lengths = np.floor(rng.lognormal(5, 1, size=(len(y), 3)))
    lengths[:, 1] *= 1 + (y == 0)
    lengths[:, 2] *= 1 + (y == 1)
    lengths[:5, 1:] = [[0, 0], [7, 7], [0, 9], [9, 0], [1e6, 1]]
    return lengths


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("texts", [True, False])
def test_numpy_gives_what_lightgbm_gives(ties, bias, texts):
    p, y, tables = battles(1, ties=ties)
    lengths = lengths_of(y, 1) if texts else None
    base = apply_blend(fit_blend(replace(RIDGED_LOGISTIC, ties=ties), list(tables), p, y), tables)
    x, _ = tree_features(p, base, lengths, ties=ties, position_bias=bias)
    assert x.shape == (3000, len(TREE_FEATURES) + (len(LENGTH_FEATURES) if texts else 0) + 2 * 3)
    for task in filter(None, tasks(p, base, y, lengths, ties=ties, position_bias=bias)):
        booster = train(task, 60)
        np.testing.assert_allclose(evaluate(numbers(booster), x), booster.predict(x, raw_score=True), atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.booleans(), st.booleans())
def test_an_exchange_of_a_and_b_exchanges_the_result(seed, ties, texts):
    p, y, tables = battles(seed, 1000, ties=ties)
    p[:, :3] = [0.4, 0.4, 0.2] if ties else [0.5, 0.5, 0.0]  # rows in which nobody is ahead
    tables = {f"m{j}": table for j, table in enumerate(p)}
    lengths = lengths_of(y, seed) if texts else None
    blend = fit_blend(TREES.of_kind(ties=ties, position_bias=False), list(tables), p, y, lengths)
    assert blend.reads_lengths == texts
    mixed = apply_blend(blend, tables, lengths)
    exchanged = None if lengths is None else lengths[:, [0, 2, 1]]
    swapped = apply_blend(blend, {name: swap_sides(table) for name, table in tables.items()}, exchanged)
    np.testing.assert_allclose(swapped, swap_sides(mixed), atol=1e-9)
    np.testing.assert_allclose(mixed.sum(axis=1), 1)
    np.testing.assert_allclose(mixed[:3, 0], mixed[:3, 1])
    assert ties or mixed[:, 2].max() == 0


def test_battles_that_are_told_from_the_other_side_give_the_same_trees():
    p, y, tables = battles(2)
    lengths = lengths_of(y, 2)
    other = fit_blend(TREES, list(tables), swap_sides(p), np.array([1, 0, 2])[y], lengths[:, [0, 2, 1]])
    same = fit_blend(TREES, list(tables), p, y, lengths)
    np.testing.assert_allclose(apply_blend(other, tables, lengths), apply_blend(same, tables, lengths), atol=1e-3)


def test_lengths_help_where_the_longer_answer_wins_and_rows_without_them_keep_the_pool():
    p, y, tables = battles(8)
    half, lengths, names = np.arange(3000) < 1500, lengths_of(y, 8), list(tables)
    held = {name: table[~half] for name, table in tables.items()}
    plain, blend = (fit_blend(TREES, names, p[:, half], y[half], texts) for texts in (None, lengths[half]))
    pool, mixed = apply_blend(blend.parts[0], held), apply_blend(blend, held, lengths[~half])
    losses = [float(log_loss_rows(table, y[~half]).mean()) for table in (apply_blend(plain, held), mixed)]
    assert losses[1] < losses[0] - 0.02
    np.testing.assert_array_equal(apply_blend(plain, held), apply_blend(plain, held, lengths[~half]))
    np.testing.assert_array_equal(apply_blend(blend, held), pool)
    some = lengths[~half].copy()
    some[::3], some[1, 2] = np.nan, np.nan
    unknown = np.isnan(some).any(axis=1)
    np.testing.assert_array_equal(apply_blend(blend, held, some), np.where(unknown[:, None], pool, mixed))


def test_they_find_steps_and_folds_choose_how_many():
    p, y, tables = battles(3, 6000)
    half = np.arange(6000) < 3000
    folds, names = balanced_folds(np.arange(3000)), list(tables)
    rounds, out_of_fold = choose_rounds(RIDGED_LOGISTIC, names, p[:, half], y[half], folds)
    held = {name: table[~half] for name, table in tables.items()}
    losses = {}
    for spec in (RIDGED_LOGISTIC, replace(TREES, tree_rounds=rounds)):
        blended = apply_blend(fit_blend(spec, names, p[:, half], y[half]), held)
        losses[spec.pool] = float(log_loss_rows(blended, y[~half]).mean())
    assert min(rounds) > 5
    assert losses["trees"] < losses["logistic"] - 0.02
    assert log_loss_rows(out_of_fold, y[half]).mean() == pytest.approx(losses["trees"], abs=0.03)


def test_where_the_pool_is_right_hardly_any_tree_is_taken():
    rng = np.random.default_rng(4)
    odds = rng.normal(size=(4000, 3))
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    p = np.exp(odds[None] + 0.3 * rng.normal(size=(2, 4000, 3)))
    p /= p.sum(axis=2, keepdims=True)
    rounds, _ = choose_rounds(RIDGED_LOGISTIC, ["a", "b"], p, y, balanced_folds(np.arange(4000)))
    assert max(rounds) < 20


def test_no_trees_at_all_leave_the_pool_as_it_is():
    p, y, tables = battles(5)
    blend = fit_blend(replace(TREES, tree_rounds=(0, 0)), list(tables), p, y)
    np.testing.assert_allclose(
        apply_blend(blend, tables), apply_blend(fit_blend(RIDGED_LOGISTIC, list(tables), p, y), tables), atol=1e-12
    )


def test_a_geometric_mean_is_between_its_parts_in_every_log_odds():
    p, y, tables = battles(6)
    second = BlendSpec("second_order", 0.01, floor=1e-2)
    spec = BlendSpec("geometric", parts=(second, TREES), part_weights=(0.4, 0.6))
    blend = fit_blend(spec, list(tables), p, y)
    parts = [np.log(apply_blend(part, tables)) for part in blend.parts]
    expected = np.exp(0.4 * parts[0] + 0.6 * parts[1])
    np.testing.assert_allclose(apply_blend(blend, tables), expected / expected.sum(axis=1, keepdims=True), atol=1e-12)
    assert spec.base == second


def test_a_blend_is_the_same_after_it_was_written_and_its_size_is_reasonable():
    p, y, tables = battles(7)
    for lengths in (None, lengths_of(y, 7)):
        blend = fit_blend(replace(TREES, tree_rounds=(100, 100)), list(tables), p, y, lengths)
        written = blend.model_dump_json(indent=2)
        assert len(written) < 500_000
        assert ('"reads"' in written) == (lengths is not None), "as plans were before trees could read lengths"
        again = Blend.model_validate_json(written)
        assert again == blend
        np.testing.assert_array_equal(apply_blend(again, tables, lengths), apply_blend(blend, tables, lengths))


def test_lightgbm_is_not_needed_to_apply_them():
    code = "import sys, ensemble.pools.blend, ensemble.pools.patterns; assert 'lightgbm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
