"""Gains: coverage of the interval by simulation, invariances, and recalibration that never sees what it is measured on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.scores.gains import Gain, cross_recalibrated_losses, drowns_at, paired_gain
from zoo.scores.metrics import log_loss_rows, recalibrated_log_loss, standard_error

# Standard deviations of what prompts, seeds, and pairs of both add to a row's gain, with the noise of rows below: which part of
# the error is the largest differs.
REGIMES = [(0.3, 0.0, 0.1), (0.3, 0.03, 0.1), (0.3, 0.1, 0.1), (0.05, 0.1, 0.1), (0.02, 0.02, 0.3), (0.02, 0.1, 0.5)]


def simulated(rng: np.random.Generator, parts: tuple[float, float, float], prompts: int, seeds: int) -> tuple[np.ndarray, ...]:
    """Losses saved (rows, seeds) where nothing is gained in truth, and the prompt of each row; prompts have 1 to 20 rows."""
    groups = np.repeat(np.arange(prompts), rng.geometric(0.3, prompts))
    own, seed, both = parts
    saved = rng.normal(0, own, prompts)[groups][:, None] + rng.normal(0, seed, seeds)
    saved = saved + rng.normal(0, both, (prompts, seeds))[groups] + rng.normal(0, 0.3, (len(groups), 1))
    return saved + rng.normal(0, 0.2, (len(groups), seeds)), groups


@pytest.mark.parametrize("prompts, seeds", [(40, 3), (150, 3), (150, 5)])
@pytest.mark.parametrize("parts", REGIMES)
def test_the_interval_covers_the_truth_about_95_times_in_100(parts, prompts: int, seeds: int) -> None:
    rng, repeats = np.random.default_rng(0), 600
    gains = []
    for _ in range(repeats):
        saved, groups = simulated(rng, parts, prompts, seeds)
        gains.append(paired_gain(saved, np.zeros_like(saved), groups))
    covered = np.mean([gain.low <= 0 <= gain.high for gain in gains])
    assert 0.925 <= covered <= 0.99  # 600 repeats of 95 %: 93.2 to 96.8 % are what chance alone gives
    assert np.mean([g.error**2 for g in gains]) == pytest.approx(np.var([g.mean for g in gains]), rel=0.35)


def test_large_interactions_do_not_make_seeds_that_lie_close_look_sure() -> None:
    """With three seeds they often do by chance; prompts of one row each, whose gain differs from seed to seed."""
    rng, covered = np.random.default_rng(6), 0
    for _ in range(2000):
        saved = rng.normal(0, 0.02, (60, 1)) + rng.normal(0, 0.1, 3) + rng.normal(0, 0.3, (60, 3))
        gain = paired_gain(saved, np.zeros_like(saved), np.arange(60))
        covered += gain.low <= 0 <= gain.high
    assert 0.94 <= covered / 2000 <= 0.99  # 91 to 92 % where the interaction is taken out with the seeds' quantile


def test_errors_of_rows_alone_would_be_too_small_where_seeds_differ() -> None:
    """What the estimator is for: an interval by rows alone, at any number of rows, misses the truth most of the time."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(200):
        saved, groups = simulated(rng, (0.05, 0.1, 0.1), 150, 3)
        missed += abs(saved.mean()) > 1.96 * standard_error(saved.mean(axis=1), groups)
    assert missed > 100


@st.composite
def losses(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    rows, seeds = draw(st.integers(4, 30)), draw(st.integers(1, 4))
    groups = np.concatenate([[0, 1], rng.integers(0, draw(st.integers(2, 10)), rows - 2)])
    return rng.exponential(1, (rows, seeds)), rng.exponential(1, (rows, seeds)), groups


def numbers(gain: Gain) -> list[float]:
    return [gain.mean, gain.error, gain.low, gain.high]


@settings(max_examples=60)
@given(losses(), st.integers(0, 1000), st.floats(-2, 2))
def test_order_names_and_a_common_shift_do_not_matter(given_losses, seed: int, shift: float) -> None:
    before, after, groups = given_losses
    rng = np.random.default_rng(seed)
    rows, seeds = rng.permutation(len(groups)), rng.permutation(before.shape[1])
    same = paired_gain((before + shift)[rows][:, seeds], (after + shift)[rows][:, seeds], 7 * groups[rows] + 3)
    assert numbers(same) == pytest.approx(numbers(paired_gain(before, after, groups)), abs=1e-9)
    turned = paired_gain(after, before, groups)
    assert [-turned.mean, -turned.high] == pytest.approx([same.mean, same.low], abs=1e-9)


@settings(max_examples=60)
@given(losses())
def test_without_chance_it_is_the_clustered_error_of_the_mean(given_losses) -> None:
    before, after, groups = given_losses
    one = paired_gain(before[:, :1], after[:, :1], groups)
    assert one.error == pytest.approx(standard_error((before - after)[:, 0], groups)) and one.seeds == 1
    copied = paired_gain(np.repeat(before[:, :1], 3, axis=1), after[:, :1], groups)
    assert numbers(copied) == pytest.approx(numbers(one)), "seeds that change nothing buy nothing"
    twice = paired_gain(np.tile(before, (2, 1)), np.tile(after, (2, 1)), np.tile(groups, 2))
    own = paired_gain(before, after, groups)
    assert twice.error == pytest.approx(own.error, rel=1e-6), "rows of the same prompts once more tell nothing new"


def test_one_prompt_says_nothing_of_others() -> None:
    with pytest.raises(ZooError, match="one prompt"):
        paired_gain(np.ones((5, 3)), np.zeros((5, 3)), np.zeros(5))


def test_a_curve_drowns_where_no_larger_count_gains() -> None:
    rng = np.random.default_rng(2)
    groups = np.arange(300)
    own = rng.normal(1.0, 0.3, (300, 1))

    def at(loss: float) -> np.ndarray:
        return own + loss + rng.normal(0, 0.02, (300, 3)) + rng.normal(0, 0.003, 3)

    counts = [0, 1000, 2000, 4000]
    assert drowns_at(counts, [at(0.2), at(0.1), at(0.1), at(0.1)], groups) == 1000
    assert drowns_at(counts, [at(0.2), at(0.2), at(0.2), at(0.2)], groups) == 0
    assert drowns_at(counts, [at(0.2), at(0.15), at(0.1), at(0.05)], groups) is None
    assert drowns_at(counts, [at(0.2), at(0.2), at(0.2), at(0.1)], groups) is None, "a gain may come late"
    assert drowns_at(counts, [at(0.1), at(0.2), at(0.3), at(0.3)], groups) == 0, "rows that cost are no gain"


def test_recalibration_never_sees_the_prompts_that_it_is_measured_on() -> None:
    rng = np.random.default_rng(3)
    groups, y = np.repeat(np.arange(60), 3), rng.integers(0, 3, 180)
    p = rng.dirichlet([1, 1, 1], 180)
    found = cross_recalibrated_losses(p, y, groups)
    assert found.mean() > recalibrated_log_loss(p, y), "fitted on the same rows it would be flattered"
    lied = np.where(groups == 7, (y + 1) % 3, y)
    other = cross_recalibrated_losses(p, lied, groups)
    same_fold = groups % 5 == 7 % 5
    truth = np.exp(-found[groups == 7]).sum(), np.exp(-other[groups == 7]).sum()
    assert found[same_fold & (groups != 7)] == pytest.approx(other[same_fold & (groups != 7)])
    assert truth[0] != truth[1] and (found[~same_fold] != other[~same_fold]).all()


def test_what_is_too_sure_of_itself_gains_by_recalibration_and_battles_without_ties_keep_none() -> None:
    rng = np.random.default_rng(4)
    true = rng.dirichlet([2, 2, 2], 900)
    y = np.array([rng.choice(3, p=row) for row in true])
    sure = true**3 / (true**3).sum(axis=1, keepdims=True)
    assert cross_recalibrated_losses(sure, y, np.arange(900)).mean() < log_loss_rows(sure, y).mean() - 0.05
    two = np.column_stack([true[:, :2] / true[:, :2].sum(axis=1, keepdims=True), np.zeros(900)])
    found = cross_recalibrated_losses(two, rng.integers(0, 2, 900), np.arange(900), ties=False)
    assert np.isfinite(found).all() and found.mean() < 0.72
