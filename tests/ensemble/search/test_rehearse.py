"""What a plan reports: a build that never saw the rows it is judged on, and never worse than doing less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.pools.blend import RIDGED_LOG, BlendSpec
from ensemble.pools.crossfit import cross_fit
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.coverage import pattern_rows
from ensemble.search.decide import find_candidates
from ensemble.search.fitting import carry_out, fit_candidate, without_idle
from ensemble.search.judging import judge
from ensemble.search.rehearse import SHOWN_SINGLES, Rehearsal, confirm, rehearse, rehearsed_folds
from ensemble.search.simple import ALONE, RECALIBRATED
from tests.helpers.members import make_members, request
from zoo.scores.metrics import log_loss_rows

BUDGET, AVAILABLE = 5400, 3600.0


def test_a_fold_is_judged_by_a_build_that_never_saw_its_labels():
    """And so is what needs no search: whatever a fold's labels are, its rows' three probabilities stay, and sum to 1."""
    members = make_members(rows=150).subset([0, 1, 3])
    asked = request(BUDGET, parsimony=True)
    held = rehearsed_folds(pose_problem(members, asked))[1] == 2
    rehearsals = []
    for turned in range(3):
        y = np.where(held, (members.y + turned) % 3, members.y)
        [rehearsal] = rehearse(pose_problem(replace(members, y=y), asked), asked, [AVAILABLE])
        rehearsals.append(rehearsal.losses)
    assert set(rehearsals[0]) >= {"search", "coverage", "cheaper_search", "log_pool", "equal_weights", "greedy_25"}
    for name in rehearsals[0]:
        probability = np.exp(-np.stack([losses[name][:, held] for losses in rehearsals]))
        np.testing.assert_allclose(probability[:, 1].sum(axis=0), 1, atol=1e-6, err_msg=name)
        if name not in ("equal_weights", "best_single") and not name.endswith(ALONE):
            assert not np.allclose(probability[:, 0].sum(axis=0), 1, atol=1e-4), f"{name}: other divisions see them"


def test_a_rehearsal_on_few_rows_is_repeated_with_other_folds_by_prompt():
    members = make_members(rows=300)
    folds = rehearsed_folds(pose_problem(members, request(BUDGET)))
    assert folds.shape == (3, 300)
    np.testing.assert_array_equal(folds[0], members.folds)
    for one in folds:
        assert all(len(set(one[members.groups == group])) == 1 for group in np.unique(members.groups))
        assert np.ptp(np.bincount(one)) <= 3 + 3
    assert all((folds[a] != folds[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))
    assert len(rehearsed_folds(pose_problem(make_members(rows=2_000), request(BUDGET)))) == 1


def test_carrying_out_a_fitted_plan_spends_what_it_may_and_blends_as_fitted():
    members = make_members(rows=600)
    problem = pose_problem(members, request(BUDGET))
    candidate = next(c for c in find_candidates(problem, request(BUDGET), AVAILABLE).considered if len(c.seen) == 1)
    fitted = fit_candidate(problem, candidate, fallbacks=False)
    j = next(iter(candidate.seen))
    seconds = problem.prices.pricing.row_seconds
    none = carry_out(fitted, candidate, members, seconds, dict.fromkeys(candidate.seen, 0.0))
    some = carry_out(fitted, candidate, members, seconds, dict(candidate.work))
    changed = np.abs(some - none).max(axis=1) > 1e-12
    assert 0 < seconds[j][changed].sum() <= candidate.work[j] * (1 + 1e-9)
    assert set(fitted.gates) == set(candidate.seen)
    assert len(pattern_rows(candidate.whole, candidate.seen, 600)) >= 2
    np.testing.assert_allclose(some.sum(axis=1), 1)


@pytest.mark.parametrize("best", ["coverage", "search", "best_single", "greedy_25", "log_pool"])
def test_the_candidate_that_went_best_in_rehearsal_is_taken(best):
    members = make_members(rows=300)
    problem = pose_problem(members, request(BUDGET))
    found = find_candidates(problem, request(BUDGET), AVAILABLE)
    gated = next(c for c in found.considered if c.seen)
    found = replace(found, candidates=found.candidates | {"coverage": gated})
    noise = np.random.default_rng(0).normal(scale=1e-3, size=(3, 300))
    losses = {name: (1.0 if name == best else 1.05) + noise for name in found.candidates}
    rehearsal = Rehearsal(losses, rehearsed_folds(problem))
    confirmed = confirm(problem, found, rehearsal, parsimony=False)
    assert confirmed.name == best
    assert confirmed.candidate is found.candidates[best]
    np.testing.assert_allclose(confirmed.losses, losses[best].mean(axis=0))
    assert confirmed.whole_file_loss == pytest.approx(1.0 if best != "coverage" else 1.05, abs=1e-3)


def test_each_single_is_judged_as_it_is_and_recalibrated_by_the_same_folds():
    members, asked = make_members(rows=150), request(BUDGET, coverage=False)
    problem = pose_problem(members, asked)
    dear = problem.prices.seconds((2,))
    [rehearsal] = rehearse(problem, asked, [dear - 1])
    for j, name in enumerate(members.names):
        assert (name + ALONE in rehearsal.losses) == (problem.prices.seconds((j,)) < dear), name
        if name + ALONE in rehearsal.losses:
            own = [cross_fit(RIDGED_LOG, [name], members.p[[j]], members.y, folds) for folds in rehearsal.folds]
            recalibrated = np.stack([log_loss_rows(table, members.y) for table in own])
            as_it_is = np.tile(log_loss_rows(members.p[j], members.y), (len(rehearsal.folds), 1))
            np.testing.assert_allclose(rehearsal.losses[name + RECALIBRATED], recalibrated, atol=1e-4)
            np.testing.assert_allclose(rehearsal.losses[name + ALONE], as_it_is, atol=1e-4)


def test_any_single_may_be_taken_and_the_best_few_stand_beside_the_plan():
    problem = pose_problem(make_members(rows=300), request(20_000))
    found = find_candidates(problem, request(20_000), AVAILABLE * 4)
    noise = np.random.default_rng(0).normal(scale=1e-3, size=(3, 300))
    ranked = [*reversed(found.singles)]
    losses = {name: noise + 1.2 + 0.01 * ranked.index(name) if name in ranked else noise + 1.4 for name in found.everything}
    confirmed = confirm(problem, found, Rehearsal(losses, rehearsed_folds(problem)), parsimony=False)
    assert (confirmed.name, confirmed.candidate) == (ranked[0], found.singles[ranked[0]])
    assert set(confirmed.beside) == set(found.candidates) | set(ranked[:SHOWN_SINGLES])
    losses |= {name: losses[name] - 1 for name in ("log_pool",)}
    assert confirm(problem, found, Rehearsal(losses, rehearsed_folds(problem)), parsimony=False).name == "log_pool"


def test_on_few_rows_a_search_has_to_win_surely():
    """Tables of good models on few rows: the log pool of everybody that fits is what is left where a fit gains nothing."""
    plan = build_plan(make_members(rows=120), request(36_000))
    log_pool = plan.baselines["log_pool"]
    assert plan.chosen == "log_pool" or plan.baselines[plan.chosen] < log_pool
    assert plan.baselines[plan.chosen] <= log_pool


def test_members_without_weight_are_not_paid_for():
    members = make_members(rows=300)
    p = members.p.copy()
    p[2] = 1 / 3  # knows nothing, and costs as before
    problem = pose_problem(replace(members, p=p), request(20_000))
    candidate = replace(judge(problem, (0, 1, 2)), spec=BlendSpec("linear"))
    fitted = fit_candidate(problem, candidate)
    lean = without_idle(problem, candidate, fitted)
    assert lean.whole == (0, 1)
    assert lean.seconds < candidate.seconds
    again = fit_candidate(problem, lean)
    here, none = problem.members, problem.prices.pricing.row_seconds
    np.testing.assert_allclose(carry_out(again, lean, here, none, {}), carry_out(fitted, candidate, here, none, {}), atol=1e-4)
    assert without_idle(problem, lean, again) is lean
