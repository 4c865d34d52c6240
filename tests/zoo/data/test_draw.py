"""Samples with unequal chances: exact counts, a floor, chances that are kept, a smaller one within a larger one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zoo.data.draw import drawn, inclusion_probabilities, with_floor

WEIGHTS = st.integers(1, 60).flatmap(lambda n: arrays(float, n, elements=st.floats(0, 1e6)))
FLOORS = st.floats(0.01, 1)


@given(WEIGHTS, FLOORS)
def test_no_item_is_without_its_part_of_the_floor(weights: np.ndarray, floor: float) -> None:
    found = with_floor(weights, floor)
    assert found.sum() == pytest.approx(1) and (found >= floor / len(found) * (1 - 1e-9)).all()


def test_all_are_equal_where_nothing_is_wanted_more() -> None:
    assert with_floor(np.zeros(4), 0.2).tolist() == [0.25] * 4


@given(WEIGHTS, FLOORS, st.integers(1, 80))
def test_chances_sum_to_the_count_in_proportion_to_the_weights(weights: np.ndarray, floor: float, rows: int) -> None:
    own = with_floor(weights, floor)
    chances = inclusion_probabilities(own, rows)
    wanted = min(rows, len(own))
    assert chances.sum() == pytest.approx(wanted) and (chances > 0).all() and (chances <= 1).all()
    assert (chances >= min(1, wanted * floor / len(own)) * (1 - 1e-9)).all()
    below = chances < 1
    if below.any():
        assert np.allclose(chances[below] / own[below], (chances[below] / own[below])[0])
        assert (own[~below] >= own[below].max() * (1 - 1e-9)).all()


@given(WEIGHTS, st.integers(0, 5), st.data())
def test_a_larger_sample_holds_the_smaller_and_counts_are_exact(weights: np.ndarray, seed: int, data: st.DataObject) -> None:
    own, names = with_floor(weights, 0.1), [str(n) for n in range(len(weights))]
    small = data.draw(st.integers(1, len(names)))
    large = data.draw(st.integers(small, len(names) + 5))
    few, many = drawn(names, own, small, seed), drawn(names, own, large, seed)
    assert len(few) == small and len(many) == min(large, len(names)) == len(set(many.tolist()))
    assert many[:small].tolist() == few.tolist() == drawn(names, own, small, seed).tolist()


def test_items_are_drawn_as_often_as_their_chances_say() -> None:
    """By 4,000 seeds: the scheme's chances are nearly those that are kept with the rows."""
    own = with_floor(np.array([0, 0, 1, 1, 2, 2, 4, 4, 30, 0, 0, 1.0]), 0.15)
    names = [f"p{n}" for n in range(len(own))]
    chances, counts, seeds = inclusion_probabilities(own, 5), np.zeros(len(own)), 4_000
    for seed in range(seeds):
        counts[drawn(names, own, 5, seed)] += 1
    assert np.abs(counts / seeds - chances).max() < 0.06  # 12 items alone: the more, the nearer
    even = with_floor(np.zeros(12), 0.15)
    flat = sum(np.bincount(drawn(names, even, 5, seed), minlength=12) for seed in range(seeds))
    assert np.abs(flat / seeds - 5 / 12).max() < 4 * np.sqrt(5 / 12 * 7 / 12 / seeds)
