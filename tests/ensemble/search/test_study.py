"""Studies: trials and time are honoured, known plans come first, and what is kept goes on and can be read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from ensemble.pools.blend import RIDGED_LOG
from ensemble.pools.crossfit import cross_fit
from ensemble.search.build import pose_problem
from ensemble.search.decide import SearchLimits
from ensemble.search.judging import judge_gated
from ensemble.search.prices import Budget, Prices
from ensemble.search.problem import Candidate, Problem
from ensemble.search.rehearse import rehearsed_folds
from ensemble.search.simple import simple_candidates
from ensemble.search.space import Drawn
from ensemble.search.study import Judge, Tried, run_study
from ensemble.search.study_file import MEMBERS, PROPOSED_BY
from tests.helpers.members import make_members, request
from zoo.errors import ZooError
from zoo.experiments.study import load_study
from zoo.report.duration import parse_budget
from zoo.report.text import as_budget
from zoo.scores.metrics import log_loss_rows

BUDGET = Budget(5400.0, 1.5, "")
MEND = "build the plan again"


@pytest.fixture(scope="module")
def problem() -> Problem:
    return pose_problem(replace(make_members(rows=150), data="battles.csv"), request(1.0))


@pytest.fixture(scope="module")
def known(problem) -> dict[str, Candidate]:
    return simple_candidates(problem, BUDGET.available)


def run(problem: Problem, known: dict[str, Candidate], limits: SearchLimits, *, budget: Budget = BUDGET) -> Tried | None:
    return run_study(problem, budget, limits, known, target="t4x2", coverage=True)


def test_trials_are_counted_and_all_of_them_fit(problem, known):
    tried = run(problem, known, SearchLimits(30))
    assert tried is not None
    assert (tried.kept.trials, tried.kept.feasible, tried.kept.storage) == (30, 1.0, None)
    assert tried.kept.plans == len(tried.plans) == len({plan.key for plan in tried.plans})
    assert tried.losses.shape == (len(tried.plans), 150)


def test_known_plans_are_tried_first_and_few_trials_have_the_last_of_them(problem, known):
    tried = run(problem, known, SearchLimits(2))
    assert tried is not None
    expected = [known[name] for name in ("logistic_pool", "greedy_25")]
    assert [(set(plan.whole), plan.spec) for plan in tried.plans] == [(set(c.whole), c.spec) for c in expected]


def test_a_study_without_time_has_no_trials_and_one_with_little_ends_before_all(problem, known):
    assert run(problem, known, SearchLimits(30, timeout_seconds=0.0)) is None
    tried = run(problem, known, SearchLimits(1_000_000, timeout_seconds=0.5))
    assert tried is not None
    assert 1 <= tried.kept.trials < 1_000_000


def test_why_there_is_no_study_is_said(problem, known):
    for pools, seconds, reason in (
        ((), 0.0, "no time for a trial"),
        (("trees", "geometric"), 60.0, "takes too long for trials"),
    ):
        said: list[str] = []
        asked = replace(problem, pools=pools, say=said.append)
        assert run(asked, known, SearchLimits(30, timeout_seconds=seconds)) is None
        assert reason in said[-1]


def test_the_same_study_is_not_run_again_and_goes_on_where_it_stopped(tmp_path: Path, problem, known):
    said: list[str] = []
    problem, path = replace(problem, say=said.append), tmp_path / "new" / "studies.db"
    first = run(problem, known, SearchLimits(12, storage=path))
    again = run(problem, known, SearchLimits(12, storage=path))
    assert first is not None and again is not None
    assert first.kept == again.kept
    assert first.plans == again.plans
    np.testing.assert_array_equal(first.losses, again.losses)
    more = run(problem, known, SearchLimits(16, storage=path))
    fewer = run(problem, known, SearchLimits(5, storage=path))
    assert more is not None and fewer is not None
    assert (more.kept.trials, fewer.kept.trials) == (16, 5)
    assert more.plans[: len(first.plans)] == first.plans
    assert sum("going on" in line and "it has 12 trials" in line for line in said) == 2
    assert len(load_study(first.kept.name, path, MEND).trials) == 16


def test_what_is_kept_says_what_it_is_of(tmp_path: Path, problem, known):
    path = tmp_path / "studies.db"
    tried = run(problem, known, SearchLimits(9, storage=path))
    assert tried is not None
    name = tried.kept.name
    assert re.fullmatch(r"t4x2 1h30m 4 members battles [0-9a-f]{8}", name)
    study = load_study(name, path, MEND)
    facts = study.user_attrs
    assert (facts["data"], facts["target"], facts["budget"]) == ("battles.csv", "t4x2", "1h30m")
    assert facts["members"] == list(problem.members.names)
    assert facts["data digest"] == problem.members.digest
    assert facts["code version"]
    assert study.metric_names == ["log loss"]
    for place, trial in enumerate(study.trials):
        assert {MEMBERS, "seconds", "feasible", "standard error"} <= set(trial.user_attrs)
        assert (PROPOSED_BY in trial.user_attrs) == (place < len(known))
        assert trial.constraints["seconds beyond the budget"] <= 0


def test_another_problem_is_another_study(problem, known):
    pricing = problem.prices.pricing
    others = [
        run(problem, known, SearchLimits(1)),
        run(problem, known, SearchLimits(1), budget=Budget(5400.0, 1.4, "")),
        run(replace(problem, position_bias=True), known, SearchLimits(1)),
        run(pose_problem(make_members(rows=150, seed=1), request(1.0)), known, SearchLimits(1)),
        run(
            replace(problem, members=replace(problem.members, lengths=problem.members.lengths[::-1])),
            known,
            SearchLimits(1),
        ),
        run(replace(problem, members=replace(problem.members, groups=np.arange(150))), known, SearchLimits(1)),
        run(replace(problem, prices=Prices(replace(pricing, wide=~pricing.wide))), known, SearchLimits(1)),
        run(replace(problem, prices=Prices(replace(pricing, processes=("one",) * len(pricing.names)))), known, SearchLimits(1)),
    ]
    assert len({tried.kept.name for tried in others if tried}) == len(others)


def test_losses_of_a_trial_are_out_of_fold_in_every_repeat(problem):
    """By an independent cross-fit of the rehearsal's folds."""
    members, spec = problem.members, problem.of_kind(RIDGED_LOG)
    names, p = members.names[:2], members.p[:2]
    expected = [log_loss_rows(cross_fit(spec, names, p, members.y, folds), members.y) for folds in rehearsed_folds(problem)]
    assert len(expected) == 3
    judge = Judge(problem)
    np.testing.assert_allclose(judge.losses(Drawn((0, 1), spec, {})), np.mean(expected, axis=0), atol=1e-9)
    many = pose_problem(make_members(rows=2_000), request(1.0))
    gated = Drawn((0, 1), spec, {2: 900.0})
    np.testing.assert_allclose(Judge(many).losses(gated), judge_gated(many, (0, 1), spec, {2: 900.0}).losses, atol=1e-9)


def test_a_file_that_is_no_study_is_one_line(tmp_path: Path, problem, known):
    path = tmp_path / "studies.db"
    path.write_text("no database, though as long as the header of one " * 40)
    for act in (lambda: run(problem, known, SearchLimits(1, storage=path)), lambda: load_study("any", path, MEND)):
        with pytest.raises(ZooError, match=r"studies\.db: studies cannot be kept or read there") as raised:
            act()
        assert "\n" not in str(raised.value)
    with pytest.raises(ZooError, match="not there any more"):
        load_study("any", tmp_path / "none.db", MEND)
    optuna.create_study(study_name="other", storage=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ZooError, match="has 1 studies, and not 'any'"):
        load_study("any", tmp_path / "other.db", MEND)


@pytest.mark.parametrize("text", ["9h", "1h30m", "5m", "1m30s", "45s", "720h", "0.25s"])
def test_a_budget_in_a_name_is_one_that_can_be_given(text):
    assert as_budget(parse_budget(text)) == text
