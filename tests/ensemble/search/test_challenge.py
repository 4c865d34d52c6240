"""A study against the exact search: it takes the plan only where it is surely better, and never makes it look worse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.members.table import balanced_folds
from ensemble.plan import ROUNDING
from ensemble.pools.blend import RIDGED_LOG, RIDGED_LOGISTIC, BlendSpec
from ensemble.search import challenge
from ensemble.search.assemble import assemble
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.challenge import STUDY, Settled, candidate_of, rehearse_study, settle, take_over
from ensemble.search.contest import FEW_LABELS
from ensemble.search.decide import BuildRequest, Found, SearchLimits, find_candidates
from ensemble.search.frontier import compute_frontier
from ensemble.search.prices import Budget
from ensemble.search.problem import Problem
from ensemble.search.rehearse import Confirmed, Rehearsal, rehearse, rehearsed_folds
from ensemble.search.space import Drawn
from ensemble.search.study import Judge, Tried
from tests.helpers.members import KINDS, make_members, request


def folds_of(rows: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    groups = np.arange(rows)
    return np.stack([balanced_folds(groups, repeat=repeat) for repeat in range(repeats)]), groups


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-0.2, 0.1), repeats=st.sampled_from([1, 3]), spread=st.floats(0.0, 2.0))
def test_what_is_reported_with_a_study_is_never_above_the_exact_result(seed, shift, repeats, spread):
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([60, FEW_LABELS]))
    folds, groups = folds_of(rows, repeats)
    exact = 1 + rng.normal(size=(repeats, rows))
    study = exact + shift + spread * rng.normal(size=(repeats, rows))
    reported = take_over(exact, study, folds, groups)
    if reported is not None:
        assert study.mean() < exact.mean()
        assert reported.mean() <= exact.mean()
        assert ((reported == exact) | (reported == study)).all()


@pytest.mark.parametrize(("rows", "errors"), [(FEW_LABELS, 1.0), (FEW_LABELS - 1, 2.0)])
def test_a_study_has_to_win_by_more_than_the_error_and_surely_on_few_rows(rows, errors):
    folds, groups = folds_of(rows, 1)
    exact = np.ones((1, rows))
    noise = np.random.default_rng(0).normal(size=rows)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * 0.01 * np.sqrt(rows)
    assert take_over(exact, exact + noise - 0.01 * errors * 0.98, folds, groups) is None
    assert take_over(exact, exact + noise - 0.01 * errors * 1.3, folds, groups) is not None


def test_what_only_one_division_into_folds_says_replaces_nothing():
    folds, groups = folds_of(300, 3)
    exact = np.ones((3, 300))
    assert take_over(exact, exact + np.array([[-0.06], [0.01], [0.02]]), folds, groups) is None
    assert take_over(exact, exact + np.array([[-0.011], [-0.010], [-0.009]]), folds, groups) is not None


@cache
def rehearsed(seed: int, *, coverage: bool) -> tuple[Problem, BuildRequest, Budget, Found, Rehearsal]:
    """A problem, searched and rehearsed: what a study may add to."""
    kinds = {**KINDS, "twin": (0.88, 0.5, 60, 0.28)} if seed % 2 else KINDS
    budget = Budget((3600.0, 14_000.0)[seed // 2], 1.0, "")
    asked = request(1.0, coverage=coverage)
    problem = pose_problem(make_members(kinds, rows=100, seed=seed), asked)
    found = find_candidates(problem, asked, budget.available)
    [rehearsal] = rehearse(problem, asked, [budget.available])
    return problem, asked, budget, found, rehearsal


def settled_with(trials: int, seed: int = 0, *, coverage: bool = False) -> Settled:
    problem, asked, budget, found, rehearsal = rehearsed(seed, coverage=coverage)
    return settle(problem, replace(asked, limits=SearchLimits(trials)), budget, found, rehearsal)


@pytest.mark.parametrize(
    ("seed", "coverage"), [(0, False), *(pytest.param(seed, True, marks=pytest.mark.slow) for seed in (0, 1, 2, 3))]
)
def test_more_trials_never_look_worse_than_the_exact_search_alone(seed, coverage):
    """The same rehearsal with and without: the plan stays as it is, or is reported as better."""
    available = rehearsed(seed, coverage=coverage)[2].available
    alone, *studied = [settled_with(trials, seed, coverage=coverage) for trials in (0, 10, 40)]
    assert alone.study is None
    for settled, trials in zip(studied, (10, 40), strict=True):
        confirmed = settled.confirmed
        assert settled.study is not None
        assert (settled.study.trials, settled.study.feasible) == (trials, 1.0)
        assert confirmed.losses.mean() <= alone.confirmed.losses.mean()
        assert confirmed.candidate.seconds <= available * (1 + ROUNDING)
        for name, losses in alone.confirmed.beside.items():
            np.testing.assert_array_equal(confirmed.beside[name], losses)
        if confirmed.name != STUDY:
            assert confirmed.candidate is alone.confirmed.candidate
            assert "too little to replace it" in confirmed.why
        else:
            assert confirmed.why.startswith("study: -")
            assert "proposed by all rows" in confirmed.estimate


def test_a_study_that_is_surely_better_is_taken(monkeypatch):
    """The exact search is left with its worst: whatever a trial finds beside that wins."""

    def weakest(problem, found, rehearsal, *, parsimony):
        losses = np.full(rehearsal.folds.shape, problem.members.uniform_loss)
        return Confirmed("best_single", found.candidates["best_single"], "", losses, 1.0, "so", {})

    monkeypatch.setattr(challenge, "confirm", weakest)
    settled = settled_with(20)
    assert settled.confirmed.name == STUDY
    assert settled.found.candidates[STUDY] is settled.confirmed.candidate
    assert settled.confirmed.why.startswith("study: -")
    problem, asked, budget, *_ = rehearsed(0, coverage=False)
    plan = assemble(problem, settled.found, settled.confirmed, budget, asked.target, study=settled.study)
    assert plan.chosen == STUDY
    assert {member.name for member in plan.members} <= set(plan.baseline_members[STUDY])
    assert plan.predicted_seconds <= plan.budget_seconds
    assert plan.oof_log_loss == pytest.approx(plan.baselines[STUDY])


def test_a_fold_is_judged_by_a_trial_that_was_fitted_without_its_labels():
    """Whatever a fold's labels are, its rows' three probabilities stay, and sum to 1."""
    members, asked = make_members(rows=150), request(5400)
    held = rehearsed_folds(pose_problem(members, asked))[0] == 2
    plans = (Drawn((0, 1), RIDGED_LOG, {}), Drawn((0, 1), RIDGED_LOGISTIC, {3: 600.0}), Drawn((1,), BlendSpec("linear"), {}))
    losses = []
    for turned in range(3):
        problem = pose_problem(replace(members, y=np.where(held, (members.y + turned) % 3, members.y)), asked)
        judge = Judge(problem)
        tried = Tried(None, plans, np.stack([judge.losses(plan) for plan in plans]))
        tried = replace(tried, losses=np.where(held, 9.0, 1.0) * np.ones((3, 1)) + np.array([[0.1], [0.0], [0.2]]))
        losses.append(rehearse_study(problem, tried, judge.folds[:1])[0, held])
    np.testing.assert_allclose(np.exp(-np.stack(losses)).sum(axis=0), 1, atol=1e-6)


def test_a_fold_has_the_trial_that_the_other_folds_prefer():
    problem = pose_problem(make_members(rows=150), request(5400))
    folds = rehearsed_folds(problem)[:1]
    plans = (Drawn((0,), RIDGED_LOG, {}), Drawn((1,), RIDGED_LOG, {}))
    lucky = np.where(folds[0] == 1, -10.0, 1.0)  # the first is far better in fold 1 and worse in all others
    found = rehearse_study(problem, Tried(None, plans, np.stack([lucky, np.full(150, 0.5)])), folds)
    first, second = (rehearse_study(problem, Tried(None, (plan,), np.ones((1, 150))), folds) for plan in plans)
    np.testing.assert_array_equal(found, np.where(folds == 1, second, first))


def test_on_many_rows_too_no_trial_is_preferred_for_what_it_did_on_the_fold(monkeypatch):
    """Trials are judged on some of the rows, whose own division into folds is another one."""
    monkeypatch.setattr("ensemble.search.problem.FEW_ROWS", 60)
    problem = pose_problem(make_members(rows=150), request(5400))
    folds, judged = rehearsed_folds(problem)[:1], problem.thinned_rows
    assert judged.sum() == len(problem.thinned().members.y) == 50
    plans = (Drawn((0,), RIDGED_LOG, {}), Drawn((1,), RIDGED_LOG, {}))
    lucky = np.where(folds[0][judged] == 1, -10.0, 1.0)  # the first is far better in fold 1 and worse in all others
    found = rehearse_study(problem, Tried(None, plans, np.stack([lucky, np.full(50, 0.5)])), folds)
    first, second = (rehearse_study(problem, Tried(None, (plan,), np.ones((1, 50))), folds) for plan in plans)
    np.testing.assert_array_equal(found, np.where(folds == 1, second, first))


def test_a_trial_with_gates_is_a_candidate_with_the_rows_that_its_seconds_buy():
    problem = pose_problem(make_members(rows=150), request(5400))
    candidate = candidate_of(problem, Drawn((0, 1), RIDGED_LOG, {3: 600.0}))
    row_seconds = problem.prices.pricing.row_seconds[3]
    assert 0 < row_seconds @ candidate.seen[3] <= 600.0 * (1 + 1e-9)
    assert candidate.work == {3: 600.0}


def test_without_trials_no_study_is_run(monkeypatch):
    monkeypatch.setattr(challenge, "run_study", lambda *_, **__: pytest.fail("a study"))
    assert settled_with(0).study is None


@pytest.mark.slow
def test_a_point_of_the_frontier_is_what_the_build_with_its_study_reports():
    members, asked = make_members(rows=90), request(1.0, coverage=False, trials=12)
    points = compute_frontier(members, asked, points=2)
    for point in points:
        plan = build_plan(members, replace(asked, budget_seconds=point.budget_seconds))
        assert plan.oof_log_loss == pytest.approx(point.oof_log_loss, abs=1e-12)
        assert {member.name for member in plan.members} <= set(point.members)
