"""What a plan reports: a build that never saw the rows it is judged on, and never worse than doing less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.pools.blend import AS_IS, BlendSpec
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.coverage import pattern_rows
from ensemble.search.decide import decide, refine
from ensemble.search.fitting import carry_out, fit_candidate, without_idle
from ensemble.search.judging import judge
from ensemble.search.rehearse import Rehearsal, best_single, confirm, rehearse
from tests.helpers.members import make_members, request
from zoo.scores.metrics import log_loss_rows

BUDGET, AVAILABLE = 5400, 3600.0


def test_a_fold_is_judged_by_a_build_that_never_saw_its_labels():
    members = make_members(rows=300)
    lied = members.y.copy()
    held = members.folds == 2
    lied[held] = (lied[held] + 1) % 3
    asked = request(BUDGET, parsimony=False)
    honest, fooled = (
        rehearse(pose_problem(replace(members, y=y), asked), asked, AVAILABLE, single_seconds=AVAILABLE)
        for y in (members.y, lied)
    )
    np.testing.assert_allclose(honest.p[held], fooled.p[held], atol=1e-6)
    assert not np.allclose(honest.p[~held], fooled.p[~held])


def test_carrying_out_a_fitted_plan_spends_what_it_may_and_blends_as_fitted():
    members = make_members(rows=600)
    problem = pose_problem(members, request(BUDGET))
    candidate = next(c for c in decide(problem, request(BUDGET, parsimony=False), AVAILABLE).considered if len(c.seen) == 1)
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


@pytest.mark.parametrize("best", ["plan", "whole_file", "single"])
def test_the_choice_that_went_best_in_rehearsal_is_taken(best):
    members = make_members(rows=300)
    problem = pose_problem(members, request(BUDGET))
    choice = refine(problem, decide(problem, request(BUDGET, parsimony=False), AVAILABLE))
    gated = next(c for c in choice.considered if c.seen)
    choice = replace(choice, candidate=gated)
    losses = {name: np.full(300, 1.0 if name == best else 1.05) for name in ("plan", "whole_file", "single")}
    confirmed = confirm(problem, choice, Rehearsal(np.empty((300, 3)), **losses), AVAILABLE)
    taken, reported = confirmed.choice, confirmed.losses
    assert reported.mean() == 1.0
    assert (taken.candidate is gated) == (best == "plan")
    assert (taken.candidate.whole == choice.whole_file.whole and not taken.candidate.seen) or best != "whole_file"
    assert (taken.candidate.spec == AS_IS) or best != "single"


def test_on_few_rows_the_plan_is_no_worse_than_the_best_single_member():
    """Tables of good models on few rows: every fit costs more than it gains, so one table is taken as it is."""
    members = make_members(rows=120)
    plan = build_plan(members, request(36_000, parsimony=False))
    problem = pose_problem(members, request(36_000))
    single = best_single(problem, np.inf)
    asked = request(36_000, parsimony=False)
    rehearsed = rehearse(problem, asked, 24_000.0, single_seconds=np.inf).single
    assert plan.oof_log_loss <= rehearsed.mean() + 1e-9
    assert single.loss == pytest.approx(min(log_loss_rows(table, members.y).mean() for table in members.p))


def test_a_plan_without_gates_reports_what_whole_files_reach():
    members = make_members(rows=300)
    problem = pose_problem(members, request(BUDGET))
    choice = refine(problem, decide(problem, request(BUDGET, coverage=False), AVAILABLE))
    rehearsal = Rehearsal(np.empty((300, 3)), plan=np.full(300, 1.1), whole_file=np.full(300, 1.0), single=np.full(300, 1.2))
    confirmed = confirm(problem, choice, rehearsal, AVAILABLE)
    assert confirmed.choice is choice
    assert confirmed.losses.mean() == confirmed.whole_file_loss == 1.0


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
