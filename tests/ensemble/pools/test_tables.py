"""Tables pooled into one: out of fold where there are labels, whatever the order of rows and tables."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.members.rows import FEWEST_ROWS
from ensemble.members.table import balanced_folds
from ensemble.pools.tables import CANDIDATES, LEAST_LOSS, pool_tables
from tests.helpers.members import make_members
from zoo.scores.metrics import log_loss_rows

MEMBERS = make_members(rows=240)
NAMES = MEMBERS.names


def holes(seed: int, share: float = 0.2) -> np.ndarray:
    """The members' tables with rows missing here and there."""
    rng = np.random.default_rng(seed)
    p = MEMBERS.p.copy()
    p[rng.random(p.shape[:2]) < share] = np.nan
    return p


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_and_of_tables_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = holes(seed)[:2], np.where(rng.random(240) < 0.3, -1, MEMBERS.y)
    pooled = pool_tables(NAMES[:2], p, y, MEMBERS.groups)
    rows, tables = rng.permutation(240), rng.permutation(2)
    mixed = pool_tables([NAMES[j] for j in tables], p[tables][:, rows], y[rows], MEMBERS.groups[rows])
    np.testing.assert_array_equal(mixed.fold, pooled.fold[rows])
    np.testing.assert_allclose(mixed.p, pooled.p[rows], atol=2e-5)


def test_every_row_that_some_table_has_is_whole_and_no_other_is_made_up() -> None:
    p = holes(1, share=0.6)[:3]
    pooled = pool_tables(NAMES[:3], p, MEMBERS.y, MEMBERS.groups)
    has = ~np.isnan(p[:, :, 0]).all(axis=0)
    assert (~has).sum() > 0 and (np.isnan(pooled.p[:, 0]) == ~has).all()
    np.testing.assert_allclose(pooled.p[has].sum(axis=1), 1)
    assert sum(rows for rows, _ in pooled.kinds.values()) == has.sum()
    assert (pooled.fold[~has] == -1).all()


@pytest.mark.parametrize("fold", range(5))
def test_a_labelled_row_knows_nothing_of_its_folds_labels(fold: int) -> None:
    y = MEMBERS.y
    held = balanced_folds(MEMBERS.groups) == fold
    other = np.where(held, (y + 1) % 3, y)
    first, second = (pool_tables(NAMES, MEMBERS.p, labels, MEMBERS.groups) for labels in (y, other))
    np.testing.assert_array_equal(first.p[held], second.p[held])
    assert np.abs(first.p[~held] - second.p[~held]).max() > 1e-4, "others are fitted to them"


def test_unlabelled_rows_get_the_fit_to_all_labelled_ones() -> None:
    y = np.where(np.arange(240) < 150, MEMBERS.y, -1)
    pooled = pool_tables(NAMES, MEMBERS.p, y, MEMBERS.groups)
    fresh = slice(150, None)
    assert (pooled.fold[fresh] == -1).all() and (pooled.fold[:150] >= 0).all()
    loss = log_loss_rows(pooled.p[fresh], MEMBERS.y[fresh]).mean()
    assert loss < log_loss_rows(MEMBERS.p.mean(axis=0)[fresh], MEMBERS.y[fresh]).mean()
    assert pooled.pool is not None and pooled.pool.rows == 150
    ours = log_loss_rows(pooled.p[:150], y[:150]).mean()
    assert pooled.pool.log_loss == pytest.approx(ours)
    for line in pooled.beside:
        assert line.difference == pytest.approx(ours - line.log_loss)


@pytest.mark.parametrize("labelled", [0, FEWEST_ROWS - 1])
def test_with_few_labels_or_none_every_table_weighs_the_same(labelled: int) -> None:
    y = np.where(np.arange(240) < labelled, MEMBERS.y, -1)
    pooled = pool_tables(NAMES, MEMBERS.p, y, MEMBERS.groups)
    np.testing.assert_allclose(pooled.p, MEMBERS.p.mean(axis=0))
    assert pooled.kinds == {NAMES: (240, "equal weights")}
    assert (pooled.pool is None) == (labelled == 0)


def test_judges_whose_labels_are_worse_than_none_are_mended() -> None:
    """Sharpened and with ties they never give: raw far above ln 3, pooled below it."""
    sharp = MEMBERS.p[:3] ** 4 * [1.0, 1.0, 0.02]
    sharp /= sharp.sum(axis=2, keepdims=True)
    pooled = pool_tables(NAMES[:3], sharp, MEMBERS.y, MEMBERS.groups)
    assert pooled.pool is not None
    assert min(line.log_loss for line in pooled.beside) > np.log(3) - 0.1 > pooled.pool.log_loss + 0.05
    assert pooled.better is None


def test_a_table_that_loses_less_than_its_pool_is_named() -> None:
    """Labels are drawn from the table itself: what a fold's fit promises, its rows do not keep."""
    worse = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet((1, 1, 1), 240)
        y = (np.log(p) + rng.gumbel(size=p.shape)).argmax(axis=1)
        pooled = pool_tables(NAMES[:1], p[None], y, MEMBERS.groups)
        ours, as_it_is = log_loss_rows(pooled.p, y).mean(), log_loss_rows(p, y).mean()
        assert (pooled.better is not None) == (ours > as_it_is + LEAST_LOSS)
        worse += pooled.better is not None
    assert worse


def test_where_no_battle_is_a_tie_none_is_given() -> None:
    p = MEMBERS.p * [1, 1, 0]
    p /= p.sum(axis=2, keepdims=True)
    pooled = pool_tables(NAMES, p, np.minimum(MEMBERS.y, 1), MEMBERS.groups, ties=False)
    assert (pooled.p[:, 2] == 0).all()


def test_equal_weights_are_a_candidate() -> None:
    assert any(not spec.fitted for spec in CANDIDATES)
