"""The map of verdicts to votes: symmetric in A and B by construction, and for labels the table of shares that was counted."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.scores.tables import swap_sides
from zoo.scores.vote_map import VoteMap, fit_vote_map, length_ratio

UNIT = st.floats(0, 1)
WEIGHT = st.floats(-3, 3)


@given(
    st.lists(st.tuples(UNIT, UNIT, UNIT, st.floats(-5, 5)).filter(lambda row: sum(row[:3]) > 0.1), min_size=1, max_size=5),
    st.lists(WEIGHT, min_size=2, max_size=2),
    st.lists(WEIGHT, min_size=4, max_size=4),
)
def test_an_exchanged_pair_has_the_exchanged_shares(rows: list, margin: list[float], tie: list[float]) -> None:
    p, lengths = np.array([row[:3] for row in rows]), np.array([row[3] for row in rows])
    p /= p.sum(axis=1, keepdims=True)
    found = VoteMap(margin=tuple(margin), tie=tuple(tie), by_length=True)
    shares = found.apply(p, lengths)
    np.testing.assert_allclose(swap_sides(found.apply(swap_sides(p), -lengths)), shares, rtol=1e-9)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)


def test_a_fit_is_the_same_whichever_side_is_a() -> None:
    rng = np.random.default_rng(0)
    p, lengths, y = rng.dirichlet(np.ones(3), 300), rng.normal(size=300), rng.integers(0, 3, 300)
    turned = rng.random(300) < 0.5
    other, other_y = np.where(turned[:, None], swap_sides(p), p), np.where(turned & (y < 2), 1 - y, y)
    one = fit_vote_map(p, lengths, y, by_length=True)
    two = fit_vote_map(other, np.where(turned, -lengths, lengths), other_y, by_length=True)
    np.testing.assert_allclose(one.margin + one.tie, two.margin + two.tie, atol=1e-5)


def test_of_labels_it_is_the_symmetric_table_of_counts() -> None:
    """Said A or B: 60 % of people agree, 10 % say the contrary, 30 % a tie; said a tie: 50 % say so, 25 % each side."""
    counts = {0: (600, 100, 300), 1: (100, 600, 300), 2: (250, 250, 500)}
    said = np.repeat([0, 1, 2], 1000)
    y = np.concatenate([np.repeat([0, 1, 2], counts[label]) for label in range(3)])
    found = fit_vote_map(np.eye(3)[said], np.zeros(3000), y, by_length=False)
    shares = found.apply(np.eye(3), np.zeros(3))
    np.testing.assert_allclose(shares, np.array([counts[label] for label in range(3)]) / 1000, atol=2e-3)


def test_an_empty_answer_has_a_length_ratio() -> None:
    np.testing.assert_allclose(length_ratio(np.array([0, 20]), np.array([10, 10])), [-np.log(10), np.log(2)])
