"""What needs no search: candidates of members that fit together, and fits that their names promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.pools.blend import GREEDY, apply_blend, fit_blend
from ensemble.pools.greedy import greedy_weights
from ensemble.search.build import pose_problem
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.problem import Problem
from ensemble.search.simple import everybody, simple_candidates
from tests.helpers.members import make_members, request
from zoo.scores.metrics import log_loss_rows


@pytest.fixture(scope="module")
def problem() -> Problem:
    return pose_problem(make_members(rows=400), request(1))


def test_each_candidate_fits_the_budget_and_all_members_are_in_where_they_do(problem):
    everyone = tuple(range(len(problem.members.names)))
    least, most = problem.prices.seconds((0,)), problem.prices.seconds(everyone)
    for available in np.geomspace(least, most * 1.01, 12):
        found = simple_candidates(problem, float(available))
        for candidate in found.values():
            assert 0 < candidate.seconds <= available * (1 + 1e-9)
            assert candidate.seconds == problem.prices.seconds(candidate.whole)
        pools = [found[name].whole for name in ("equal_weights", "log_pool", "logistic_pool")]
        assert len(set(pools)) == 1
        room = [j for j in everyone if j not in pools[0] and problem.prices.seconds((*pools[0], j)) <= available]
        assert not room, "nobody else would fit"
    assert pools[0] == everyone


def test_the_candidates_are_what_their_names_say(problem):
    members = problem.members
    found = simple_candidates(problem, 1e9)
    losses = log_loss_rows(np.concatenate(members.p), np.tile(members.y, len(members.p))).reshape(len(members.p), -1)
    alone, nothing = {}, problem.prices.pricing.row_seconds
    for name, candidate in found.items():
        fitted = fit_candidate(problem, candidate, fallbacks=False)
        alone[name] = carry_out(fitted, candidate, members, nothing, {})
    best = int(losses.mean(axis=1).argmin())
    np.testing.assert_allclose(alone["best_single"], members.p[best], atol=1e-5)
    np.testing.assert_allclose(alone["equal_weights"], members.p.mean(axis=0), atol=1e-5)
    weights = greedy_weights(members.p, members.y)
    np.testing.assert_allclose(alone["greedy_25"], np.tensordot(weights, members.p, axes=1), atol=1e-5)
    tempered = log_loss_rows(alone["best_single_recalibrated"], members.y).mean()
    assert tempered <= losses.mean(axis=1).min() + 1e-3


def test_everybody_is_the_best_alone_first_after_recalibration(problem):
    """A member that is too sure of itself is no worse for it."""
    p = problem.members.p.copy()
    p[2] = p[2] ** 3 / (p[2] ** 3).sum(axis=1, keepdims=True)
    sure = pose_problem(replace(problem.members, p=p), request(1))
    order = sorted(range(4), key=lambda j: problem.fitter.score((j,)).loss)
    assert order[0] == 2
    assert 2 in everybody(sure, lambda subset: len(subset) <= 1)
    assert everybody(sure, lambda subset: len(subset) <= 2) == everybody(problem, lambda subset: len(subset) <= 2)


def test_greedy_selection_takes_only_what_fits(problem):
    p, y = problem.members.p, problem.members.y
    free = greedy_weights(p, y)
    assert greedy_weights(p, y, fits=lambda subset: len(subset) <= 1).max() == 1
    assert np.count_nonzero(greedy_weights(p, y, fits=lambda subset: len(subset) <= 2)) <= 2
    with pytest.raises(ValueError, match="not even alone"):
        greedy_weights(p, y, fits=lambda _: False)
    blend = fit_blend(GREEDY, problem.members.names, p, y)
    assert blend.weights == pytest.approx(tuple(free))
    some = np.flatnonzero(free)  # a refit of what was taken takes the same
    np.testing.assert_allclose(greedy_weights(p[some], y), free[some])
    tables = dict(zip(problem.members.names, p, strict=True))
    assert log_loss_rows(apply_blend(blend, tables), y).mean() < log_loss_rows(p.mean(axis=0), y).mean()
