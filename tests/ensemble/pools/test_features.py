"""Distances between the rows of two files, against the two-sample statistic of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy, ks_2samp

from ensemble.pools.features import distances, row_features, summary_of


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.0), (-2.0, 1.0), (0.0, 3.0)])
def test_a_distance_is_that_of_kolmogorov_and_smirnov_up_to_a_step_of_the_summary(shift, scale):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=3_000), rng.normal(size=2_000) * scale + shift
    [found] = distances(summary_of({"entropy": ours}), {"entropy": theirs})
    exact = ks_2samp(ours, theirs)
    assert found.ks == pytest.approx(exact.statistic, abs=1 / 40)
    assert (found.ks > found.noise) == ((shift, scale) != (0.0, 1.0))
    if shift:
        assert found.higher == (shift > 0)


def test_values_that_occur_often_are_no_distance_from_themselves():
    values = np.repeat([0.0, 1.0], [700, 300])
    [found] = distances(summary_of({"tie": values}), {"tie": values[::2]})
    assert found.ks < 1 / 40 + 1e-9
    [other] = distances(summary_of({"tie": values}), {"tie": np.repeat([0.0, 1.0], [300, 700])})
    assert other.ks == pytest.approx(0.4, abs=1 / 40 + 1e-9) and other.higher


def test_scripts_are_compared_by_total_variation():
    summary = summary_of({"tie": np.zeros(10)}, ["latin"] * 8 + ["cjk"] * 2)
    found = {one.feature: one.ks for one in distances(summary, {"tie": np.zeros(10)}, ["latin"] * 5 + ["greek"] * 5)}
    assert found["script"] == pytest.approx(0.5) and found["tie"] == 0


def test_features_are_the_members_entropy_and_how_far_they_are_apart():
    p = np.random.default_rng(1).dirichlet([1, 1, 1], (4, 20))
    features = row_features(p, np.zeros(20))
    assert "characters" not in features
    each = entropy(p, axis=2).mean(axis=0)
    np.testing.assert_allclose(features["entropy"], each)
    np.testing.assert_allclose(features["disagreement"], entropy(p.mean(axis=0), axis=1) - each)
    np.testing.assert_allclose(row_features(p[:1], np.ones(20))["disagreement"], 0, atol=1e-12)
