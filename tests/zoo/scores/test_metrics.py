"""The standard error of a mean, of independent rows and of rows that share a prompt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.scores.metrics import mean_and_error, standard_error


def test_the_clustered_standard_error_counts_copies_of_a_prompt_once():
    losses = np.random.default_rng(0).normal(size=400)
    alone = standard_error(losses, np.arange(400))
    copied = standard_error(np.repeat(losses, 5), np.repeat(np.arange(400), 5))
    assert copied == pytest.approx(alone)
    assert alone == pytest.approx(losses.std(ddof=1) / 20)


def test_without_groups_every_row_is_its_own():
    losses = np.random.default_rng(1).normal(size=50)
    assert mean_and_error(losses) == pytest.approx(mean_and_error(losses, np.arange(50)))


@pytest.mark.parametrize(("values", "groups"), [([0.7], None), ([0.7, 0.9], [3, 3])])
def test_one_row_or_one_prompt_says_nothing_of_the_spread(values, groups):
    mean, error = mean_and_error(np.array(values), None if groups is None else np.array(groups))
    assert mean == pytest.approx(np.mean(values))
    assert math.isnan(error)
