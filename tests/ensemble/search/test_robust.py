"""Groups left out of the build in turn: who is chosen by them, and what the plan says of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ensemble.members.texts import COLUMN, SCRIPT
from ensemble.pools.blend import RIDGED_LOG, RIDGED_LOGISTIC, apply_blend, fit_blend
from ensemble.pools.crossfit import named
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.challenge import STUDY, rehearse_study, settle, take_over
from ensemble.search.contest import Contest
from ensemble.search.decide import SearchLimits, find_candidates
from ensemble.search.measure import Measure
from ensemble.search.prices import Budget
from ensemble.search.rehearse import rehearse
from ensemble.search.robust import LEAST_ROWS, AskedGroups, Groups, beyond_by_group, groups_of, score, score_and_error
from ensemble.search.simple import simple_candidates
from ensemble.search.space import Drawn
from ensemble.search.study import Judge, Tried, run_study
from tests.helpers.members import make_members, request
from zoo.errors import ZooError
from zoo.experiments.study import load_study
from zoo.scores.metrics import log_loss_rows, mean_and_error

OF = np.repeat([0, 1, 2], [600, 300, 100])


def with_column(values: list[str], **options: object):
    members = make_members(rows=len(values), **options)
    return replace(members, about=pd.DataFrame({COLUMN: values}, index=list(members.ids)))


def test_scores_are_the_worst_group_and_the_mean_of_groups():
    losses = np.choose(OF, [1.0, 1.2, 1.4])
    assert score(losses, OF, "worst") == pytest.approx(1.4) and score(losses, OF, "mean") == pytest.approx(1.2)
    prompts = np.arange(1_000)
    noise = np.random.default_rng(0).normal(size=1_000)
    for by in ("worst", "mean"):
        difference, error = beyond_by_group(losses + noise, losses, OF, prompts, by)
        assert difference == pytest.approx(score(losses + noise, OF, by) - score(losses, OF, by))
        assert error > 0 and beyond_by_group(losses, losses, OF, prompts, by) == (0, 0)
    assert beyond_by_group(losses + noise, losses, OF, prompts, "worst")[1] == pytest.approx(
        noise[OF == 2].std(ddof=1) / 10, rel=1e-6
    )


def test_the_error_of_a_score_is_of_the_worst_group_and_of_groups_that_weigh_the_same():
    losses, prompts = np.choose(OF, [1.0, 1.2, 1.4]) + np.random.default_rng(1).normal(size=1_000), np.arange(1_000)
    parts = [mean_and_error(losses[group == OF], prompts[group == OF]) for group in range(3)]
    worst = max(range(3), key=lambda group: parts[group][0])
    assert score_and_error(losses, OF, prompts, "worst") == pytest.approx(parts[worst])
    mean, error = score_and_error(losses, OF, prompts, "mean")
    assert mean == pytest.approx(np.mean([one[0] for one in parts])) == pytest.approx(score(losses, OF, "mean"))
    assert error == pytest.approx(np.hypot.reduce([one[1] for one in parts]) / 3, rel=0.05)


@pytest.mark.parametrize(("by", "winner"), [("worst", "steady"), ("mean", "steady"), (None, "specialist")])
def test_a_specialist_of_the_largest_group_wins_on_the_mixture_and_not_on_groups(by, winner):
    names = ("log_pool", "steady", "specialist")
    of = np.repeat(OF, 4)
    losses = np.stack([np.full(4_000, 1.3), np.full(4_000, 1.0), np.choose(of, [0.8, 1.15, 1.2])])[:, None]
    held = Groups(AskedGroups("source", by), ("a", "b", "c"), of) if by else None
    contest = Contest(names, losses, of[None], np.arange(4_000), np.ones(3), held=held)
    assert contest.winner == winner
    assert ("groups of source" in contest.why()) == bool(by)


def test_groups_are_of_a_column_of_lengths_and_of_scripts():
    members = with_column(["x"] * 200 + ["y"] * 100)
    found = groups_of(members, AskedGroups("source"))
    assert found.names == ("x", "y") and (found.of == np.repeat([0, 1], [200, 100])).all()
    scripts = replace(members, about=pd.DataFrame({SCRIPT: ["latin"] * 150 + ["cjk"] * 150}))
    assert set(groups_of(scripts, AskedGroups("language")).names) == {"latin", "cjk"}
    bands = groups_of(scripts, AskedGroups("length"))
    assert len(bands.names) == 4 and np.ptp(np.bincount(bands.of)) <= 1
    means = [scripts.characters[bands.of == place].mean() for place in range(4)]
    assert sorted(bands.names) == [name for _, name in sorted(zip(means, bands.names, strict=True))]


def test_small_groups_are_put_together_and_what_leaves_one_is_refused():
    few = LEAST_ROWS // 2
    found = groups_of(with_column(["x"] * 200 + ["y"] * few + ["z"] * few), AskedGroups("source"))
    assert sorted(zip(np.bincount(found.of).tolist(), found.names, strict=True)) == [(2 * few, "y and z"), (200, "x")]
    for values, message in (
        (["x"] * 200, "fewer than two groups"),
        ([str(i) for i in range(200)], "200 values"),
    ):
        with pytest.raises(ZooError, match=message):
            groups_of(with_column(values), AskedGroups("source"))
    for column, message in (("source", "no such column beside .*; give one of theirs"), ("language", "came without texts")):
        with pytest.raises(ZooError, match=message):
            groups_of(make_members(rows=100), AskedGroups(column))


def test_a_group_with_nearly_all_prompts_leaves_nothing_to_build_on_and_is_refused():
    """Judges, or lengths of answers, of the same prompts: leaving one out leaves all of its prompts out."""
    members = with_column(["x", "y", "x"] * 100)  # of each prompt three rows
    with pytest.raises(ZooError, match="without the prompts of x 0 rows are left"):
        groups_of(members, AskedGroups("source"))
    every_other = with_column(["x", "y", "y", *["y"] * 3] * 50)
    with pytest.raises(ZooError, match="without the prompts of y 0 rows are left"):
        groups_of(every_other, AskedGroups("source"))
    apart = with_column((["x"] * 3 + ["y"] * 3) * 50)
    assert len(groups_of(apart, AskedGroups("source")).names) == 2


@pytest.mark.slow
def test_a_group_is_judged_by_a_build_that_never_saw_it_nor_its_prompts():
    """Whatever the group's labels are, its rows' three probabilities stay, and sum to 1. Prompts lie in two groups here."""
    values = ["x" if i % 7 < 4 else "y" for i in range(300)]
    members = with_column(values).subset([0, 1, 3])
    asked = request(5_400, robust=AskedGroups("source"), coverage=False)
    held = np.array(values) == "y"
    touched = np.isin(members.groups, members.groups[held])
    assert (touched & ~held).any()
    losses = []
    for turned in range(3):
        turning = replace(members, y=np.where(touched, (members.y + turned) % 3, members.y))
        [rehearsal] = rehearse(pose_problem(turning, asked), asked, [3_600.0])
        losses.append(rehearsal.losses["log_pool"][0, held])
    np.testing.assert_allclose(np.exp(-np.stack(losses)).sum(axis=0), 1, atol=1e-6)


@pytest.mark.slow
def test_a_robust_plan_has_the_loss_of_each_group_and_promises_their_rows_mean():
    members = with_column(["x"] * 200 + ["y"] * 100).subset([0, 1, 3])
    plan = build_plan(members, request(5_400, robust=AskedGroups("source", "mean"), coverage=False))
    assert plan.robust is not None and (plan.robust.column, plan.robust.by) == ("source", "mean")
    assert {group.name: group.rows for group in plan.robust.groups} == {"x": 200, "y": 100}
    assert sum(group.rows * group.log_loss for group in plan.robust.groups) / 300 == pytest.approx(plan.oof_log_loss)
    assert "a fold is a group of source" in plan.estimate


def test_what_cannot_be_grouped_is_refused_before_anything_is_searched():
    said: list[str] = []
    with pytest.raises(ZooError, match="--robust source"):
        build_plan(make_members(rows=100), request(5_400, robust=AskedGroups("source")), say=said.append)
    assert not any("searching" in line for line in said)


# --- the study of a robust build ---------------------------------------------------------------------------------------------


def two_sources(rows: int = 300):
    """Prompts of three rows each, some of which lie in both sources."""
    return with_column(["x" if i % 7 < 4 else "y" for i in range(rows)])


def test_a_trial_is_judged_on_each_group_by_fits_that_saw_neither_it_nor_its_prompts():
    """By an independent fit."""
    problem = pose_problem(two_sources(), request(5_400))
    members, spec = problem.members, problem.of_kind(RIDGED_LOG)
    groups = groups_of(members, AskedGroups("source"))
    expected = np.empty(len(members.y))
    for group in (0, 1):
        held = groups.of == group
        others = ~np.isin(members.groups, members.groups[held])
        assert others.sum() < (~held).sum()
        names, p = members.names[:2], members.p[:2]
        blend = fit_blend(spec, names, p[:, others], members.y[others])
        expected[held] = log_loss_rows(apply_blend(blend, named(names, p[:, held])), members.y[held])
    judge = Judge(problem, groups)
    np.testing.assert_allclose(judge.losses(Drawn((0, 1), spec, {})), expected, atol=1e-6)
    assert Tried(None, (), np.empty(0), judge.measure).measure.score(expected) == pytest.approx(
        max(expected[groups.of == group].mean() for group in (0, 1))
    )


def test_the_study_of_a_robust_build_is_another_one_and_its_trials_are_compared_by_the_worst_group(tmp_path):
    problem = pose_problem(replace(two_sources(), data="b.csv"), request(5_400))
    groups, budget = groups_of(problem.members, AskedGroups("source")), Budget(5_400.0, 1.5, "")
    known = simple_candidates(problem, budget.available)
    limits = SearchLimits(12, storage=tmp_path / "studies.db")
    found = [
        run_study(problem, budget, limits, known, target="t4x2", coverage=False, groups=one)
        for one in (groups, None, replace(groups, asked=AskedGroups("source", "mean")))
    ]
    assert len({tried.kept.name for tried in found}) == 3
    tried, study = found[0], load_study(found[0].kept.name, tmp_path / "studies.db", "build again")
    assert study.user_attrs["compared by"].startswith("the worst of 2 groups of source")
    worst = [score(losses, groups.of, "worst") for losses in tried.losses]
    values = {round(trial.value, 9) for trial in study.trials}
    assert {round(value, 9) for value in worst} <= values
    assert tried.preferred(np.ones(300, dtype=bool)) is tried.plans[int(np.argmin(worst))]
    first = groups.of == 0
    assert tried.preferred(first) is tried.plans[int(tried.losses[:, first].mean(axis=1).argmin())]


def test_a_group_is_rehearsed_by_a_trial_that_was_fitted_without_its_labels_and_its_prompts_labels():
    """Whatever the group's labels are, its rows' three probabilities stay, and sum to 1. Prompts lie in two groups here."""
    members, asked = two_sources(), request(5_400)
    groups = groups_of(members, AskedGroups("source"))
    held = groups.of == 1
    touched = np.isin(members.groups, members.groups[held])
    plans = (Drawn((0, 1), RIDGED_LOG, {}), Drawn((0, 1), RIDGED_LOGISTIC, {}))
    losses = []
    for turned in range(3):
        problem = pose_problem(replace(members, y=np.where(touched, (members.y + turned) % 3, members.y)), asked)
        tried = Tried(None, plans, np.array([[1.0], [1.1]]) * np.ones(300), Measure(groups))
        losses.append(rehearse_study(problem, tried, groups.of[None])[0, held])
    np.testing.assert_allclose(np.exp(-np.stack(losses)).sum(axis=0), 1, atol=1e-6)


def test_a_study_that_gains_on_the_largest_group_and_loses_on_the_worst_replaces_nothing():
    of = np.repeat(OF, 4)
    held, prompts = Groups(AskedGroups("source"), ("a", "b", "c"), of), np.arange(4_000)
    exact = np.choose(of, [0.9, 1.0, 1.2])[None]
    specialist, steady = exact + np.choose(of, [-0.4, -0.02, 0.01]), exact + np.choose(of, [0.02, 0.02, -0.1])
    assert take_over(exact, specialist, of[None], prompts) is not None
    assert take_over(exact, specialist, of[None], prompts, Measure(held)) is None
    reported = take_over(exact, steady, of[None], prompts, Measure(held))
    assert reported is not None and score(reported[0], of, "worst") <= score(exact[0], of, "worst")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["worst", "mean"])
def test_a_robust_build_has_a_study_and_never_looks_worse_for_it(by):
    members = with_column(["x"] * 200 + ["y"] * 100).subset([0, 1, 3])
    asked = request(5_400, robust=AskedGroups("source", by), coverage=False)
    problem, budget = pose_problem(members, asked), Budget(5_400.0, 1.0, "")
    found = find_candidates(problem, asked, budget.available)
    [rehearsal] = rehearse(problem, asked, [budget.available])
    alone, studied = (
        settle(problem, replace(asked, limits=SearchLimits(trials)), budget, found, rehearsal) for trials in (0, 20)
    )
    assert alone.study is None and studied.study is not None and studied.study.trials == 20
    assert STUDY in studied.confirmed.beside and studied.confirmed.robust is not None
    of = rehearsal.groups.of
    assert score(studied.confirmed.losses, of, by) <= score(alone.confirmed.losses, of, by)


def test_a_study_on_some_of_the_rows_has_groups_that_alternate_in_the_file(monkeypatch):
    """Every second row would be all of one of them, with nothing to fit to where that one is left out."""
    monkeypatch.setattr("ensemble.search.problem.FEW_ROWS", 200)
    members = with_column(["x", "y"] * 150).subset([0, 1, 3])
    members = replace(members, groups=np.arange(300))
    problem = pose_problem(members, request(5_400))
    groups = groups_of(members, AskedGroups("source"))
    of = groups.of[problem.thinned_rows]
    assert len(of) == 150 and np.array_equal(problem.thinned_rows, problem.thinned_rows)
    assert np.bincount(of).min() > 50
    losses = Judge(problem, groups).losses(Drawn((0, 1), RIDGED_LOG, {}))
    assert losses.shape == (150,) and np.isfinite(losses).all()
