"""Plans: they fit, they say what they promise, and they hold everything that predicting needs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ensemble.budget.schedule import lower_bound
from ensemble.members.table import Members
from ensemble.plan import Bound, Plan, load_plan, save_plan
from ensemble.pools.blend import SPECS, apply_blend
from ensemble.pools.crossfit import paired
from ensemble.pools.gate import predicted_gain
from ensemble.pools.patterns import blend_for
from ensemble.report.frontier import save_frontier
from ensemble.report.views import frontier_table, plan_page
from ensemble.search.assemble import assemble
from ensemble.search.build import build_plan, plan_numbers, pose_problem
from ensemble.search.decide import Found, cheapest_as_good, refine
from ensemble.search.frontier import compute_frontier
from ensemble.search.judging import judge, judge_gated
from ensemble.search.prices import Budget
from ensemble.search.problem import Candidate
from ensemble.search.rehearse import Confirmed
from tests.helpers.members import CPU, make_members, request
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection
from zoo.errors import ZooError
from zoo.report.text import as_text
from zoo.scores.metrics import log_loss_rows
from zoo.store import identity
from zoo.targets import load_target


@pytest.fixture(scope="module")
def members() -> Members:
    return make_members()


@cache
def built(budget: float, *, coverage: bool = True, rows: int = 500) -> Plan:
    return build_plan(make_members(rows=rows), request(budget, coverage=coverage))


@pytest.fixture(scope="module")
def gated() -> Plan:
    """A plan whose budget has room for a part of an expensive member, on rows that are enough to show it."""
    plan = built(5400, rows=2_000)
    assert any(member.gate for member in plan.members)
    return plan


@pytest.mark.parametrize(("budget", "coverage"), [(300, True), (5400, True), (5400, False), (20_000, True)])
def test_a_plan_fits_its_budget_with_the_margin(budget, coverage):
    plan = built(budget, coverage=coverage)
    assert plan.predicted_seconds * plan.margin <= budget
    assert plan.predicted_seconds == max(job.end_seconds for job in plan.schedule)
    assert plan.margin == 1.5
    assert "declared" in plan.margin_reason
    assert coverage or all(member.coverage == 1 for member in plan.members)


def test_the_budget_of_the_cheapest_plan_is_enough_to_the_last_bit():
    members = make_members(rows=60, target="cpu")
    asked = request(1.0, target=CPU, rows=3000, margin=1.0, coverage=False)
    budget = pose_problem(members, asked).prices.seconds((0,))
    plan = build_plan(members, replace(asked, budget_seconds=budget))
    assert [member.name for member in plan.members] == ["lexical"]


def test_coverage_is_no_worse_than_whole_files_at_the_same_budget(gated):
    whole = built(5400, coverage=False, rows=2_000)
    assert gated.oof_log_loss < whole.oof_log_loss
    assert gated.whole_file_oof_log_loss == pytest.approx(whole.oof_log_loss)
    assert {name: gated.baselines[name] for name in whole.baselines} == pytest.approx(whole.baselines)


def test_more_budget_buys_no_worse_a_log_loss():
    losses = [built(budget, rows=2_000).oof_log_loss for budget in (300, 5400, 20_000)]
    assert all(more <= less + 2e-3 for less, more in itertools.pairwise(losses))


def test_an_infeasible_budget_names_the_cheapest_plan_and_what_it_needs(members):
    with pytest.raises(ZooError, match=r"lexical alone.*--budget (\d+)s") as error:
        build_plan(members, request(20))
    needed = int(str(error.value).split("--budget ")[1].split("s ")[0])
    assert build_plan(members, request(needed)).members[0].name == "lexical"
    with pytest.raises(ZooError, match="lexical alone"):
        build_plan(members, request(needed - 2))


def test_members_too_wide_for_the_target_are_left_out_or_refused():
    wide = make_members(gpus=2, target="t4")
    with pytest.raises(ZooError, match="no member fits t4"):
        build_plan(wide, request(3600, target=load_target("t4")))
    mixed = make_members(target="t4")
    cards = tuple(
        c.model_copy(update={"cost": c.cost.model_copy(update={"gpus": 2 if c.entry == "big" else 1})}) for c in mixed.cards
    )
    plan = build_plan(replace(mixed, cards=cards), request(36_000, target=load_target("t4")))
    assert plan.left_out == {"big": "one copy needs 2 GPUs"}


def test_the_order_of_members_does_not_change_the_plan(members):
    order = [2, 0, 3, 1]
    plan, shuffled = built(20_000), build_plan(members.subset(order), request(20_000, parsimony=False))
    assert {m.name: pytest.approx(m.weight, abs=1e-6) for m in plan.members} == {m.name: m.weight for m in shuffled.members}
    assert plan.oof_log_loss == pytest.approx(shuffled.oof_log_loss, abs=1e-6)


def test_a_plan_survives_the_disk_and_refuses_what_it_does_not_know(tmp_path, gated):
    path = tmp_path / "plan.json"
    save_plan(gated, path)
    assert load_plan(path) == gated
    path.write_text(gated.model_dump_json().replace('"schema_version":1', '"schema_version":9', 1))
    with pytest.raises(ZooError, match="schema_version is 9"):
        load_plan(path)
    path.write_text(gated.model_dump_json().replace('"rows":', '"unheard_of":1,"rows":', 1))
    with pytest.raises(ZooError, match="unheard_of"):
        load_plan(path)
    path.write_text("{")
    with pytest.raises(ZooError, match="not JSON"):
        load_plan(path)
    with pytest.raises(ZooError, match="no such plan"):
        load_plan(tmp_path / "none.json")


def test_a_plan_names_no_path_of_the_machine_that_built_it(members):
    inputs = {key: Input(path=Path(f"/builder/{key}"), fingerprint=key) for key in ("model", "battles")}
    asked = ScoreRequest(
        entry="big",
        held=Held(),
        selection=Selection(rows="listed", ids=Input(path=Path("/builder/ids.txt"), fingerprint="ids")),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
        spec=ScoreSpec(),
        target="t4x2",
        **inputs,
    )
    cards = tuple(card.model_copy(update={"request": asked}) for card in members.cards)
    plan = build_plan(replace(members, cards=cards), request(300))
    assert "/builder" not in plan.model_dump_json()
    for member in plan.members:
        assert isinstance(member.request, ScoreRequest) and identity(member.request) == identity(asked)


def test_every_subset_of_members_has_a_blend(gated, members):
    names = [member.name for member in gated.members]
    tables = dict(zip(members.names, members.p, strict=True))
    for size in range(1, len(names) + 1):
        for subset in itertools.combinations(names, size):
            blend = blend_for(gated.pools, frozenset(subset), planned=False)
            assert blend is not None
            assert set(blend.members) == set(subset)
            np.testing.assert_allclose(apply_blend(blend, tables).sum(axis=1), 1)
    assert blend_for(gated.pools, frozenset()) is None


def test_the_gate_in_the_plan_picks_the_rows_that_were_paid_for(gated):
    members = make_members(rows=2_000)
    member = next(m for m in gated.members if m.gate)
    tables = dict(zip(members.names, members.p, strict=True))
    before = apply_blend(blend_for(gated.pools, frozenset(member.gate.given), planned=False), tables)
    gain = predicted_gain(member.gate, before, members.characters)
    chosen = np.argsort(-gain)[: round(member.coverage * len(gain))]
    after = apply_blend(blend_for(gated.pools, frozenset({*member.gate.given, member.name}), planned=False), tables)
    realised = log_loss_rows(before, members.y) - log_loss_rows(after, members.y)
    assert realised[chosen].mean() > realised.mean()


@pytest.mark.parametrize("budget", [300, 5400, 20_000])
def test_what_stands_beside_a_plan_fits_the_budget_together(members, budget):
    plan, prices = built(budget), pose_problem(members, request(budget)).prices
    assert set(plan.baseline_members) == set(plan.baselines) - {"uniform"}
    for name, chosen in plan.baseline_members.items():
        if name != "coverage":
            assert prices.seconds(tuple(sorted(map(members.names.index, chosen)))) * plan.margin <= budget, name


def test_of_many_rows_a_plan_is_no_worse_than_anything_beside_it(gated):
    for plan in (gated, built(5400, coverage=False, rows=2_000), built(300, rows=2_000)):
        for item in plan.paired:
            assert plan.baselines[plan.chosen] - plan.baselines[item.other] <= item.standard_error + 1e-9, item.other


def test_the_plan_carries_what_the_issue_asks_for(gated):
    simple = {"best_single", "best_single_recalibrated", "equal_weights", "log_pool", "greedy_25", "logistic_pool"}
    assert set(gated.baselines) >= simple | {"search", "coverage", "uniform"}
    assert gated.chosen in gated.baselines
    assert {item.other for item in gated.paired} >= {"best_single"}
    assert sum(member.weight for member in gated.members) == pytest.approx(1)
    assert gated.bound is not None
    assert gated.bound.gap >= 0
    assert gated.oof_log_loss_se > 0
    assert gated.whole_file_oof_log_loss >= gated.oof_log_loss
    text = as_text(plan_page(gated))
    assert all(member.name in text for member in gated.members)
    assert gated.margin_reason in text
    assert plan_numbers(gated)["val/log_loss"] == gated.oof_log_loss


def test_gated_members_run_after_those_that_their_gates_read(gated):
    for member in gated.members:
        if member.gate:
            start = min(job.start_seconds for job in gated.schedule if member.name in job.members)
            ends = [job.end_seconds for job in gated.schedule if set(job.members) & set(member.gate.given)]
            assert max(ends) <= start + 1e-6


def test_variants_of_one_checkpoint_pay_one_load():
    members = make_members({"ab": (0.9, 0.5, 600, 0.05), "ba": (0.9, 0.5, 600, 0.05)}, target="cpu")
    cards = tuple(card.model_copy(update={"checkpoint": "same"}) for card in members.cards)
    both = pose_problem(replace(members, cards=cards), request(9e4, target=CPU, rows=1000))
    apart = pose_problem(members, request(9e4, target=CPU, rows=1000))
    assert apart.prices.seconds((0, 1)) - both.prices.seconds((0, 1)) == pytest.approx(600)
    assert both.prices.seconds((0, 1)) - both.prices.overhead >= lower_bound(both.prices.pricing.loads((0, 1)), 1) - 1e-6


def test_parsimony_takes_a_cheaper_plan_that_is_as_good():
    members = make_members({"cheap": (1.0, 0.4, 10, 0.01), "dear": (1.0, 0.4, 10, 0.5), "noise": (0.0, 0.3, 10, 0.5)})
    members = replace(members, p=members.p[[0, 0, 2]])  # what is dear says the same
    plan = build_plan(members, request(36_000, coverage=False, parsimony=True))
    best = build_plan(members, request(36_000, coverage=False))
    assert [member.name for member in plan.members] == ["cheap"]
    assert plan.predicted_seconds < best.predicted_seconds
    assert "the cheapest within one standard error of the best" in plan.parsimony
    assert "cheaper_search" in plan.baselines
    assert "cheaper_search" not in best.baselines


def test_the_cheapest_that_is_as_good_is_cheaper_and_within_the_error():
    rows = 400
    base, sign, spec = np.ones(rows), np.tile([1.0, -1.0], rows // 2), SPECS[1]
    best = Candidate((0, 1), spec, 100, base)
    cheap = Candidate((0,), spec, 50, base + 0.004 + 0.2 * sign)
    worse = Candidate((1,), spec, 20, base + 0.02 + 0.2 * sign)
    hardly = Candidate((2,), spec, 96, base)
    groups = np.arange(rows)
    assert cheapest_as_good([best, cheap, worse, hardly], groups) is cheap
    assert cheapest_as_good([best, worse, hardly], groups) is None


def test_the_plan_is_the_chosen_one_and_the_reason_is_its_own(members):
    problem = pose_problem(members, request(20_000))
    bound = Bound(found=1, lower_bound=1, gap=0, method="", subsets=2, seconds=0)
    chosen, other = judge(problem, (0, 1)), judge(problem, (0, 2))
    found = Found({"search": other, "log_pool": chosen}, (chosen, other), bound)
    beside = {name: candidate.losses for name, candidate in found.candidates.items()}
    confirmed = Confirmed("log_pool", chosen, "taken", chosen.losses[None], 1.0, "so", beside)
    plan = assemble(problem, found, confirmed, Budget(20_000, 1.5, ""), load_target("t4x2"))
    assert {member.name for member in plan.members} == {members.names[0], members.names[1]}
    assert (plan.parsimony, plan.chosen) == ("taken", "log_pool")
    assert plan.baseline_members["search"] == (members.names[0], members.names[2])
    refined = refine(problem, other, (chosen, other))
    assert refined.whole in {chosen.whole, other.whole}


def test_what_is_printed_as_taken_is_what_is_written():
    said: list[str] = []
    plan = build_plan(make_members(), request(5400), say=said.append)
    assert f"taking {len(plan.members)} members: {plan.parsimony}" in said


def test_a_plan_says_how_its_log_loss_was_estimated(gated):
    assert "repeated 5 times, each time without" in gated.estimate
    assert "repeated 15 times (3 divisions into folds), each time without" in built(20_000).estimate
    assert gated.estimate in as_text(plan_page(gated))


def test_a_lengths_file_changes_the_price_in_proportion(tmp_path, members):
    import csv
    import json

    path = tmp_path / "long.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for i in range(20):
            length = int(members.characters.mean() * 2 / 3)
            writer.writerow([f"t{i}", *(json.dumps(["x" * length]) for _ in range(3))])
    as_fitted = pose_problem(members, request(9e4, rows=5000))
    doubled = pose_problem(members, request(9e4, rows=5000, lengths=path))
    np.testing.assert_allclose(
        doubled.prices.pricing.row_seconds.sum(axis=1), 2 * as_fitted.prices.pricing.row_seconds.sum(axis=1), rtol=0.02
    )


def test_a_plan_against_itself_is_no_better():
    same = paired("itself", np.arange(4.0), np.arange(4.0), np.arange(4))
    assert (same.difference, same.standard_error) == (0, 0)


def test_the_frontier_falls_with_the_budget_and_promises_what_a_build_reports(tmp_path):
    members = make_members(rows=150).subset([0, 1, 3])
    points = compute_frontier(members, request(1, coverage=False), points=3)
    assert len(points) > 1
    assert all(a.budget_seconds < b.budget_seconds for a, b in itertools.pairwise(points))
    assert all(a.oof_log_loss > b.oof_log_loss for a, b in itertools.pairwise(points))
    for point in points:
        plan = build_plan(members, request(point.budget_seconds, coverage=False))
        assert point.rehearsed
        assert not any(considered.rehearsed for considered in plan.frontier)
        assert (plan.oof_log_loss, plan.oof_log_loss_se) == pytest.approx((point.oof_log_loss, point.oof_log_loss_se))
        assert {member.name for member in plan.members} <= set(point.members)
    save_frontier(points, tmp_path)
    assert (tmp_path / "frontier.png").stat().st_size > 1000
    assert len(as_text(frontier_table(points)).splitlines()) == len(points) + 1


def test_a_frontier_with_gates_says_what_builds_say_and_its_bands_are_of_differences():
    members = make_members(rows=2_000).subset([0, 1])
    points = compute_frontier(members, request(1), points=3)
    assert any(min(point.coverage) < 1 for point in points)
    plans = [build_plan(members, request(point.budget_seconds)) for point in points]
    for point, plan in zip(points, plans, strict=True):
        assert (plan.oof_log_loss, plan.predicted_seconds) == pytest.approx((point.oof_log_loss, point.predicted_seconds))
        coverage = {member.name: member.coverage for member in plan.members}
        assert coverage == pytest.approx(dict(zip(point.members, point.coverage, strict=True)))
        assert point.beside_best.difference == pytest.approx(point.oof_log_loss - points[-1].oof_log_loss)
    assert points[-1].beside_best.standard_error == 0
    assert 0 < points[0].beside_best.standard_error < points[0].oof_log_loss_se, "both see the same rows"


def test_a_gated_member_that_could_see_every_row_needs_no_gate(members):
    problem = pose_problem(members, request(1e6))
    spec = problem.specs[-1]
    for share, gated in ((0.5, True), (1.0, False)):
        judged = judge_gated(problem, (0,), spec, {1: share * problem.prices.whole_work(1)})
        assert bool(judged.seen) == bool(judged.work) == gated
        assert judged.whole == ((0,) if gated else (0, 1))
    assert judged.seconds == problem.prices.seconds((0, 1))
    np.testing.assert_allclose(judged.losses, log_loss_rows(problem.evaluator.oof((0, 1), spec), members.y))
    both = judge_gated(problem, (0,), spec, {1: 0.5 * problem.prices.whole_work(1), 3: problem.prices.whole_work(3)})
    assert (both.whole, list(both.seen)) == ((0, 3), [1])


@pytest.mark.parametrize("kinds", [("linear",), ("log", "logistic")])
@pytest.mark.parametrize("rows", [300, 2_000])
def test_a_plan_has_a_pool_of_the_kinds_that_were_asked_for(kinds, rows):
    members = make_members(rows=rows).subset([0, 1])
    plan = build_plan(members, request(2_000, pools=kinds))
    assert {pool.blend.pool for pool in plan.pools} <= set(kinds)
    assert {"log_pool", "equal_weights"} <= set(plan.baselines), "what it may not be stands beside it all the same"


@pytest.mark.parametrize("kinds", [("trees",), ("geometric", "trees")])
def test_pools_that_need_more_rows_are_refused_before_anything_is_searched(members, kinds):
    said: list[str] = []
    with pytest.raises(ZooError, match=f"--pool {' --pool '.join(kinds)}: boosted trees need 5,000 labelled rows, and .* 500"):
        build_plan(members, request(2_000, pools=kinds), say=said.append)
    assert not said


def test_a_label_that_was_never_seen_is_told_and_keeps_its_share():
    members = make_members(rows=120).subset([0, 1])
    rows = members.y != 2
    plan = build_plan(members.rows(rows), request(20_000, coverage=False))
    share = 1 / (rows.sum() + 3)
    tables = {name: np.tile([0.5, 0.5, 0.0], (4, 1)) for name in members.names}
    for pool in plan.pools:
        assert apply_blend(pool.blend, tables)[:, 2].min() >= share
    assert (
        f"labels that none of the {rows.sum():,} fitting rows has keep a share in every row: {share:.4f} for a tie"
        in as_text(plan_page(plan))
    )
    assert "keep a share" not in as_text(plan_page(built(20_000)))


def test_a_row_costs_the_same_whatever_the_file_has_and_starting_is_no_part_of_it():
    """A plan for 200 rows is mostly start-up: divided by its rows it said 0.027 s for a member of 0.00013 s a row."""
    one = make_members({"lexical": (0.3, 0.2, 5.0, 0.00013)}, gpus=0, target="cpu")
    prices = {}
    for rows in (200, 25_000):
        plan = build_plan(one, request(3600, rows=rows, target=CPU))
        numbers = plan_numbers(plan)
        prices[rows] = numbers["cost/seconds_per_row"], numbers["cost/hours_25k"]
        assert 0 < numbers["cost/seconds_per_row"] < 0.002, "its own and the reading and writing of a row"
    assert prices[200] == pytest.approx(prices[25_000], rel=1e-6)
    assert prices[25_000][1] == pytest.approx(plan.predicted_seconds / 3600)
