"""More members than can be enumerated: Optuna starts from the bound's solution, keeps to the budget and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.table import Members, balanced_folds
from ensemble.pools.blend import SPECS, BlendSpec
from ensemble.search.build import pose_problem
from ensemble.search.decide import JUDGED_AGAIN, BuildRequest, finalists, find_candidates
from ensemble.search.problem import Candidate, Problem
from ensemble.search.proposals import search_subsets
from ensemble.search.with_optuna import SearchLimits, search_with_optuna
from tests.helpers.manifests import score_card
from zoo.contracts import Cost
from zoo.targets import load_target

COUNT, ROWS, AVAILABLE = 15, 200, 4000.0


def make_members() -> Members:
    """Fifteen members; the better ones cost more."""
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(ROWS, 3)) * 1.4
    p = np.exp(np.stack([odds * (0.2 + 0.04 * j) + rng.normal(size=odds.shape) * 0.6 for j in range(COUNT)]))
    cards = tuple(
        score_card(f"m{j}", rows=ROWS, cost=Cost(target="t4x2", load_seconds=20, seconds_per_row=0.02 + 0.01 * j))
        for j in range(COUNT)
    )
    groups = np.arange(ROWS)
    return Members(
        names=tuple(card.member for card in cards),
        cards=cards,
        fingerprints=("",) * COUNT,
        ids=tuple(map(str, groups)),
        p=p / p.sum(axis=2, keepdims=True),
        tokens=np.full((COUNT, ROWS), 100),
        y=(odds + rng.gumbel(size=odds.shape)).argmax(axis=1),
        groups=groups,
        folds=balanced_folds(groups),
        characters=rng.lognormal(7, 0.8, ROWS),
        digest="d",
        lost_rows=0,
        left_out={},
    )


@pytest.fixture(scope="module")
def request_() -> BuildRequest:
    return BuildRequest(load_target("t4x2"), AVAILABLE * 1.5, 25_000, limits=SearchLimits(trials=8, timeout_seconds=60))


@pytest.fixture(scope="module")
def problem(request_) -> Problem:
    return pose_problem(make_members(), request_)


def test_the_choice_keeps_to_the_budget_and_to_the_bound(problem, request_):
    choice = find_candidates(problem, request_, AVAILABLE)
    assert all(candidate.seconds <= AVAILABLE for candidate in choice.candidates.values())
    assert "branch and bound" in choice.bound.method
    assert "Optuna" in choice.bound.method
    assert choice.bound.lower_bound <= choice.bound.found
    assert choice.bound.gap <= 1e-4


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, problem):
    said: list[str] = []
    problem = replace(problem, say=said.append)
    limits = SearchLimits(trials=5, timeout_seconds=60, storage=tmp_path / "optuna.db")
    searched = search_subsets(problem, AVAILABLE)
    first = search_with_optuna(problem, AVAILABLE, searched, limits)
    again = search_with_optuna(problem, AVAILABLE, searched, replace(limits, trials=7))
    assert any("5 trials are there" in line for line in said)
    assert (first.trials, again.trials) == (5, 7)
    assert again.candidates[0].loss <= first.candidates[0].loss
    assert all(candidate.seconds <= AVAILABLE for candidate in again.candidates)


def test_the_first_trials_are_the_baselines_and_the_best_affordable_set(tmp_path: Path, problem):
    import optuna

    path = tmp_path / "optuna.db"
    searched = search_subsets(problem, AVAILABLE)
    search_with_optuna(problem, AVAILABLE, searched, SearchLimits(trials=7, storage=path))
    [summary] = optuna.get_all_study_summaries(f"sqlite:///{path}")
    trials = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{path}").trials
    used = [{j for j in range(COUNT) if trial.params[f"use m{j}"]} for trial in trials]
    assert used[0] == set(searched.subsets[0].members)
    assert any(len(members) == 1 for members in used)
    assert all(trial.user_attrs["seconds"] > 0 for trial in trials)
    assert all("seconds" in trial.constraints for trial in trials)


def test_a_study_never_crowds_out_what_the_exact_search_proposed():
    """It tries a lucky pool on the same plan again and again: each plan counts once, beside the others."""

    def plan(gated: int, loss: float, spec: BlendSpec = SPECS[1]) -> Candidate:
        seen = {gated: np.tile([True, False], 5)}
        return Candidate((0,), spec, 100.0, np.full(10, loss), seen, work={gated: 50.0 + 1e-9 * gated})

    proposed = [plan(j, 1.0 + j / 100) for j in range(1, 4)]
    drawn = [plan(9, 0.8 + k / 1000, spec) for k, spec in enumerate(SPECS)] + [plan(1, 0.7), plan(8, 0.9)]
    kept = finalists(proposed, drawn)
    assert kept[:3] == proposed
    assert [c.loss for c in kept[3:]] == [0.8, 0.9]
    many = [plan(j, 0.5) for j in range(20, 40)]
    assert len(finalists(proposed, many)) == 3 + JUDGED_AGAIN


def test_without_trials_nothing_is_drawn(problem, request_):
    alone = find_candidates(problem, replace(request_, limits=SearchLimits(trials=0)), AVAILABLE)
    assert "Optuna" not in alone.bound.method
