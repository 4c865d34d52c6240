"""Why members are in a plan or not: each change is what it says, sure only where it is, and cheap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.members.table import Members
from ensemble.plan import Reasons
from ensemble.pools.blend import AS_IS, RIDGED_LOG, RIDGED_LOGISTIC
from ensemble.pools.crossfit import cross_fit
from ensemble.search import reasons as module
from ensemble.search.assemble import frontier_points
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.prices import Budget, Prices
from ensemble.search.problem import NOT_JUDGED, Candidate, Problem
from ensemble.search.reasons import FLOOR, MOST_ERRORS, error_correlation, reasons_of
from tests.helpers.members import make_members, request
from zoo.scores.metrics import log_loss_rows, mean_and_error

LEXICAL, SMALL, BIG, OTHER = range(4)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return pose_problem(make_members(rows=2_000), request(5400))


def why(problem: Problem, whole: tuple[int, ...], spec=RIDGED_LOG, budget: float = 5400, seen=None) -> Reasons:
    seen = seen or {}
    candidate = Candidate(whole, spec, problem.prices.seconds(whole, seen), NOT_JUDGED, seen)
    return reasons_of(problem, candidate, candidate.members, Budget(budget, 1.5, ""))


def twins(rows: int = 2_000) -> Members:
    """Members of which the last says what the one before it says."""
    members = make_members(rows=rows)
    return replace(members, p=members.p[[LEXICAL, SMALL, BIG, BIG]])


def losses(members: Members, *chosen: int) -> np.ndarray:
    """Losses (rows,) of a log pool out of fold."""
    names = [members.names[j] for j in chosen]
    return log_loss_rows(cross_fit(RIDGED_LOG, names, members.p[list(chosen)], members.y, members.folds), members.y)


def test_leaving_out_one_of_two_that_say_the_same_costs_nothing_surely():
    found = why(pose_problem(twins(), request(5400)), (SMALL, BIG, OTHER))
    for twin in ("big", "other"):
        change = found.of(twin).without_it
        assert change.log_loss == pytest.approx(0, abs=2e-4) and not change.sure
        assert change.seconds < 0
    assert found.of("small").without_it.log_loss > 10 * abs(found.of("big").without_it.log_loss)


def test_a_strong_member_that_is_not_there_would_add_more_than_its_error(problem):
    found = why(problem, (LEXICAL, SMALL))
    for name in ("big", "other"):
        change = found.of(name).with_it
        assert change.sure and change.is_better and change.log_loss < -3 * change.standard_error
    assert [reason.name for reason in found.members] == ["lexical", "small", "big", "other"], "what gains most comes first"
    assert found.everyone.log_loss <= found.of("big").with_it.log_loss + 1e-3


def test_a_change_is_the_paired_difference_of_two_cross_fits_on_the_same_folds(problem):
    members, found = problem.members, why(problem, (LEXICAL, SMALL))
    for change, chosen in ((found.of("big").with_it, (0, 1, 2)), (found.of("small").without_it, (0,))):
        expected = mean_and_error(losses(members, *chosen) - losses(members, 0, 1), members.groups)
        assert (change.log_loss, change.standard_error) == pytest.approx(expected, abs=1e-9)
    assert found.rows == len(members.y)
    assert found.of("big").recalibrated_log_loss == pytest.approx(losses(members, BIG).mean())
    assert found.of("big").oof_log_loss == pytest.approx(log_loss_rows(members.p[BIG], members.y).mean())


def test_seconds_are_predicted_ones_and_the_budget_has_what_a_forecast_may_take_more(problem):
    slower = np.array([1.0, 1.0, 1.6, 1.0])
    doubtful = replace(problem, prices=Prices(problem.prices.pricing.with_factors(slower)))
    plain, found = (why(one, (LEXICAL, BIG)) for one in (problem, doubtful))
    for name in ("big", "small"):
        change, like = (one.of(name).without_it or one.of(name).with_it for one in (found, plain))
        assert change.seconds == pytest.approx(like.seconds)
    assert found.of("small").with_it.budget_seconds > 1.2 * plain.of("small").with_it.budget_seconds
    candidates = [Candidate(whole, RIDGED_LOG, doubtful.prices.seconds(whole), np.ones(2_000)) for whole in ((BIG,),)]
    (point,) = frontier_points(doubtful, candidates, 1.5)
    assert point.predicted_seconds == pytest.approx(problem.prices.seconds((BIG,)))
    assert point.budget_seconds == pytest.approx(1.5 * doubtful.prices.seconds((BIG,)))


def test_what_a_change_costs_is_its_price_and_fits_says_whether_the_budget_is_enough(problem):
    needed = problem.prices.seconds((LEXICAL, SMALL, BIG)) * 1.5
    for budget, fits in ((needed * 1.001, True), (needed * 0.999, False)):
        change = why(problem, (LEXICAL, SMALL), budget=budget).of("big").with_it
        assert change.fits == fits
        assert change.budget_seconds == pytest.approx(needed)
        assert change.seconds == pytest.approx(needed / 1.5 - problem.prices.seconds((LEXICAL, SMALL)))


def just_enough(problem: Problem, *members: int) -> float:
    return problem.prices.seconds(members) * 1.5 * 1.001


def test_what_is_too_dear_beside_the_plan_is_judged_in_the_place_of_whom_it_resembles():
    problem = pose_problem(twins(), request(5400))
    found = why(problem, (LEXICAL, SMALL, BIG), budget=just_enough(problem, LEXICAL, SMALL, BIG))
    twin = found.of("other")
    assert not twin.with_it.fits and twin.in_place_of == "big"
    assert twin.exchanged.log_loss == pytest.approx(0, abs=1e-9) and not twin.exchanged.sure
    assert twin.exchanged.fits and twin.exchanged.seconds < 0, "it is the cheaper of the two"
    assert all(found.of(name).exchanged is None and found.of(name).in_place_of is None for name in ("lexical", "small", "big"))


def test_an_exchange_is_the_paired_difference_of_two_cross_fits_and_its_price_that_of_the_set(problem):
    members, budget = problem.members, just_enough(problem, LEXICAL, BIG)
    found = why(problem, (LEXICAL, BIG), budget=budget).of("other")
    assert found.in_place_of == "big", "the other's place is too cheap for it"
    expected = mean_and_error(losses(members, LEXICAL, OTHER) - losses(members, LEXICAL, BIG), members.groups)
    assert (found.exchanged.log_loss, found.exchanged.standard_error) == pytest.approx(expected, abs=1e-9)
    assert found.exchanged.budget_seconds == pytest.approx(problem.prices.seconds((LEXICAL, OTHER)) * 1.5)


def test_what_fits_beside_the_plan_or_in_no_place_of_it_is_exchanged_for_nobody(problem):
    roomy = why(problem, (LEXICAL, SMALL), budget=just_enough(problem, 0, 1, 2, 3))
    tight = why(problem, (LEXICAL, SMALL), budget=just_enough(problem, LEXICAL, SMALL))
    for found in (roomy, tight):
        assert [reason.exchanged for reason in found.members] == [None] * 4
    assert not tight.of("big").with_it.fits


def test_a_gated_member_is_judged_on_every_row_and_left_out_of_its_own(problem):
    seen = np.arange(2_000) % 2 == 0
    found = why(problem, (SMALL,), seen={BIG: seen})
    assert found.of("big").with_it.log_loss < 0 and found.of("big").without_it.log_loss > 0
    assert found.of("big").with_it.seconds > 0 > found.of("big").without_it.seconds
    assert found.of("small").with_it is None
    prior = log_loss_rows(np.tile(problem.members.prior, (2_000, 1)), problem.members.y)  # of rows that nobody else sees
    as_it_is = np.where(seen, losses(problem.members, SMALL, BIG), losses(problem.members, SMALL))
    without = np.where(seen, losses(problem.members, BIG), prior)
    assert found.of("small").without_it.log_loss == pytest.approx((without - as_it_is).mean())


def test_the_only_member_cannot_be_left_out_and_everyone_is_no_change_of_everyone(problem):
    alone = why(problem, (BIG,))
    assert alone.of("big").without_it is None and alone.of("small").with_it is not None
    everyone = why(problem, (0, 1, 2, 3))
    assert everyone.everyone is None and all(reason.with_it is None for reason in everyone.members)


def test_a_pool_that_fits_nothing_is_stood_in_for_and_that_is_said(problem):
    assert why(problem, (LEXICAL, SMALL)).pool == "the plan's own log pool"
    assert why(problem, (LEXICAL, SMALL), AS_IS).pool == "a ridged logistic pool, in place of the plan's own"
    assert why(problem, (LEXICAL, SMALL), RIDGED_LOGISTIC).pool == "the plan's own logistic pool"


def test_few_rows_are_judged_by_repeated_folds():
    """One division of 300 rows is one draw: the mean over several is another number."""
    problem = pose_problem(make_members(rows=300), request(5400))
    members, found = problem.members, why(problem, (LEXICAL, SMALL))
    assert found.of("big").recalibrated_log_loss != pytest.approx(losses(members, BIG).mean(), abs=1e-9)


def test_work_is_bounded_rows_go_first_and_then_the_worst_members(monkeypatch, problem):
    whole = why(problem, (LEXICAL, SMALL, BIG))
    monkeypatch.setattr(module, "LEAST_ROWS", 500)
    monkeypatch.setattr(module, "WORK", 60_000)
    fewer = why(problem, (LEXICAL, SMALL, BIG))
    assert 500 < fewer.rows < whole.rows == 2_000
    assert all(reason.without_it or reason.with_it for reason in fewer.members)
    monkeypatch.setattr(module, "WORK", 30_000)
    least = why(problem, (LEXICAL, SMALL, BIG))
    judged = {reason.name: bool(reason.without_it or reason.with_it) for reason in least.members}
    assert least.rows == 500 and judged["big"] and not judged["lexical"]


def test_correlation_of_errors_is_numpy_s_symmetric_with_ones_on_the_diagonal():
    members = twins(400)
    found = error_correlation(members, (BIG, SMALL))
    assert found.members == ("big", "small", "other", "lexical"), "the plan's first, then the best alone"
    matrix, apart = np.array(found.correlation), np.array(found.disagreement)
    assert (matrix == matrix.T).all() and (np.diag(matrix) == 1).all()
    assert (apart == apart.T).all() and (np.diag(apart) == 0).all()
    assert matrix[0, 2] == 1 and apart[0, 2] == 0
    order = [BIG, SMALL, OTHER, LEXICAL]
    losses = [log_loss_rows((1 - FLOOR) * members.p[j] + FLOOR / 3, members.y) for j in order]
    np.testing.assert_allclose(matrix, np.corrcoef(losses), atol=6e-4)


def test_a_picture_of_errors_stays_readable_and_a_constant_member_correlates_with_nobody():
    members = make_members({f"m{j:02d}": (0.5, 0.5, 1, 0.1) for j in range(30)}, rows=60)
    flat = members.p.copy()
    flat[0] = 1 / 3
    found = error_correlation(replace(members, p=flat), (0,))
    assert len(found.members) == MOST_ERRORS
    assert np.abs(np.array(found.correlation)[0, 1:]).max() == 0


def test_a_build_says_why_and_what_was_excluded_is_no_candidate():
    members = make_members(rows=300)
    plan = build_plan(replace(members.subset([0, 1, 3]), left_out={"big": "--exclude big"}), request(5400, coverage=False))
    assert {reason.name for reason in plan.reasons.members} == {"lexical", "small", "other"}
    assert set(plan.error_correlation.members) == {"lexical", "small", "other"}
    own = [reason.name for reason in plan.reasons.members[: len(plan.members)]]
    assert own == [member.name for member in plan.members]
    assert all((reason.name in own) == (reason.without_it is not None) for reason in plan.reasons.members)
    assert plan.left_out == {"big": "--exclude big"}
