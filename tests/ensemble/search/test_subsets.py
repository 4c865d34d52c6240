"""Subsets: exact against brute force, bounds that hold, and a study that goes on where it stopped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.pools.linear import fit_linear
from ensemble.search.subsets import Fitter, search_branch_and_bound, search_exactly

SEEDS = st.integers(0, 2**32 - 1)


def truth(seed: int, members: int, rows: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the true label (members, rows) that share part of their errors, and costs."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    shared = rng.normal(size=(rows, 3))
    logits = z * rng.uniform(0.2, 1.2, (members, 1, 1)) + 0.5 * shared + rng.normal(size=(members, rows, 3)) * 0.7
    p = np.exp(logits)
    p /= p.sum(axis=2, keepdims=True)
    return p[:, np.arange(rows), y], rng.uniform(0.5, 2, members)


def brute_force(true: np.ndarray, affordable) -> float:
    """The least loss over all affordable subsets, each fitted from scratch with the uniform triple beside it."""
    uniform = np.full((1, true.shape[1]), 1 / 3)
    losses = []
    for size in range(1, len(true) + 1):
        for subset in itertools.combinations(range(len(true)), size):
            if affordable(subset):
                losses.append(fit_linear(np.vstack([true[list(subset)], uniform])).loss)
    return min(losses)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 6), st.floats(0.4, 6))
def test_all_subsets_and_branch_and_bound_agree_with_brute_force(seed, members, budget):
    true, costs = truth(seed, members)

    def affordable(subset) -> bool:
        return costs[list(subset)].sum() <= max(budget, costs.min())

    best = brute_force(true, affordable)
    exact = search_exactly(true, affordable)
    bounded = search_branch_and_bound(true, affordable, gap=1e-7)
    assert exact.subsets[0].loss == pytest.approx(best, abs=3e-6)
    assert bounded.subsets[0].loss == pytest.approx(best, abs=3e-6)
    assert bounded.lower_bound <= best + 3e-6
    assert all(affordable(scored.members) for searched in (exact, bounded) for scored in searched.subsets)


def test_members_that_are_worse_than_guessing_break_nothing():
    """Sets whose best pool is the uniform triple alone have no curvature in any member to start the next fit from."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.01, 0.2, (4, 100))
    exact = search_exactly(true, lambda _: True)
    assert len(exact.subsets) == 15
    assert exact.subsets[0].loss == pytest.approx(np.log(3), abs=1e-6)
    assert search_branch_and_bound(true, lambda _: True).subsets[0].loss == pytest.approx(np.log(3), abs=1e-6)


def test_every_affordable_subset_is_there_once():
    true, costs = truth(1, 7)
    exact = search_exactly(true, lambda s: costs[list(s)].sum() <= 4)
    expected = [s for k in range(1, 8) for s in itertools.combinations(range(7), k) if costs[list(s)].sum() <= 4]
    assert sorted(scored.members for scored in exact.subsets) == sorted(expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(2, 7))
def test_adding_a_member_never_hurts_in_sample(seed, members):
    true, _ = truth(seed, members)
    fitter = Fitter(true)
    losses = [fitter.score(range(k)).loss for k in range(members, 0, -1)]
    assert all(more <= fewer + 3e-6 for more, fewer in itertools.pairwise(losses))


def test_a_timeout_still_leaves_a_valid_bound_and_a_solution():
    true, costs = truth(3, 16, rows=400)

    def affordable(subset) -> bool:
        return costs[list(subset)].sum() <= 3

    hurried = search_branch_and_bound(true, affordable, timeout_seconds=0.0)
    patient = search_branch_and_bound(true, affordable)
    assert hurried.lower_bound <= patient.subsets[0].loss + 3e-6
    assert patient.subsets[0].loss - patient.lower_bound <= 1e-5 + 3e-6
