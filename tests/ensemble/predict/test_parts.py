"""The parts of a prediction: every row gets a triple whatever is missing, rows are dealt once, time is never promised twice."""

from __future__ import annotations

import datetime
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.plan import Blend, Job, Plan, PlanMember, PlanTarget, Pool, TokenEstimate, blend_for
from ensemble.pools.blend import apply_blend
from ensemble.predict.board import Board, whole
from ensemble.predict.deadline import Deadline
from ensemble.predict.replan import (
    Claim,
    Pace,
    by_value,
    makespan_after,
    must_end_by,
    pool_gain,
    predicted_row_seconds,
    share_out,
)
from zoo.contracts import Cost, Variant
from zoo.errors import ZooError
from zoo.scores.tables import score_table

NAMES = ("first", "second", "third")
PRIOR = (0.4, 0.35, 0.25)


def plan_member(name: str, cost: Cost | None = None, tokens: TokenEstimate | None = None) -> PlanMember:
    return PlanMember(
        name=name,
        entry=name,
        variant=Variant(),
        weight=1.0,
        coverage=1.0,
        predicted_seconds=1.0,
        oof_log_loss=1.0,
        checkpoint=name,
        cost=cost or Cost(target="cpu", load_seconds=1.0),
        tokens=tokens or TokenEstimate(),
    )


def make_pool(names: tuple[str, ...], kind: str, loss: float, *, planned: bool = False, temperature: float = 1.0) -> Pool:
    count = len(names)
    eye = tuple(tuple(float(i == j) / count for j in range(3)) for i in range(3))
    blend = Blend(
        pool=kind,
        members=names,
        weights=(1 / count,) * count,
        temperatures=(1.0,) * count,
        coefficients=(eye,) * count if kind == "logistic" else (),
        temperature=temperature,
    )
    return Pool(members=names, planned=planned, blend=blend, log_loss=loss)


def make_plan(pools: list[Pool]) -> Plan:
    return Plan(
        created_at=datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
        target=PlanTarget(name="cpu", gpus=0),
        budget_seconds=10,
        margin=1.5,
        margin_reason="test",
        predicted_seconds=3,
        overhead_seconds=0,
        rows=10,
        dataset_digest="0",
        fitted_rows=10,
        oof_log_loss=1.0,
        oof_log_loss_se=0.1,
        prior=PRIOR,
        members=tuple(plan_member(name) for name in NAMES),
        pools=tuple(pools),
        schedule=(),
    )


SUBSETS = [subset for k in (1, 2, 3) for subset in itertools.combinations(NAMES, k)]
triples = st.tuples(*[st.floats(0, 1)] * 3).filter(lambda t: sum(t) > 1e-3).map(lambda t: tuple(v / sum(t) for v in t))
boards = st.lists(st.tuples(*[st.none() | triples | st.just("refused")] * 3), min_size=1, max_size=12)


@given(boards, st.sampled_from(["linear", "log", "logistic"]), st.sets(st.sampled_from(SUBSETS)), st.randoms())
def test_every_row_is_a_distribution_whatever_is_missing(rows, kind, subsets, random) -> None:
    pools = [make_pool(subset, kind, 1.0 - 0.01 * i) for i, subset in enumerate(sorted(subsets | {NAMES}))]
    plan = make_plan(pools)
    ids = [f"id{i}" for i in range(len(rows))]
    board = Board(ids, NAMES)
    for j, name in enumerate(NAMES):
        told = [i for i, row in enumerate(rows) if row[j] is not None]
        random.shuffle(told)
        p = [(np.nan,) * 3 if rows[i][j] == "refused" else rows[i][j] for i in told]
        status = ["refused" if rows[i][j] == "refused" else "ok" for i in told]
        assert board.add(name, score_table([ids[i] for i in told], np.array(p).reshape(-1, 3), status=status)) == len(told)
    blended = board.blended(plan, {name: np.ones(len(ids), dtype=bool) for name in NAMES})
    assert np.allclose(blended.p.sum(axis=1), 1) and (blended.p >= 0).all()
    assert sum(blended.patterns.values()) == len(ids)
    for i, row in enumerate(rows):  # row by row, by the rule itself
        there = [name for name, value in zip(NAMES, row, strict=True) if value not in (None, "refused")]
        blend = blend_for(plan, frozenset(there))
        alone = {name: np.array([value]) for name, value in zip(NAMES, row, strict=True) if name in there}
        expected = PRIOR if blend is None else whole(apply_blend(blend, alone), PRIOR)[0]
        assert blended.p[i] == pytest.approx(expected)


def test_rows_as_planned_get_the_blend_fitted_on_such_rows() -> None:
    easy = make_pool(("first",), "linear", 0.8, planned=True, temperature=0.5)
    plan = make_plan([easy, make_pool(("first",), "linear", 1.0), make_pool(NAMES, "linear", 0.9)])
    board = Board(["x", "y"], NAMES)
    board.add("first", score_table(["y", "x"], np.array([[0.5, 0.3, 0.2]] * 2)))
    planned = {"first": np.array([True, True]), "second": np.array([False, True]), "third": np.array([False, True])}
    p = board.blended(plan, planned).p
    sharper = np.array([0.25, 0.09, 0.04]) / 0.38
    assert p[0] == pytest.approx(sharper)  # the gates leave it with the first member alone
    assert p[1] == pytest.approx([0.5, 0.3, 0.2])  # it should have had all three: fitted on all rows


def test_a_board_takes_rows_by_id_once_and_refuses_strangers() -> None:
    board = Board(["x", "y"], NAMES)
    board.add("first", score_table(["y"], np.array([[0.2, 0.3, 0.5]])))
    assert board.add("first", score_table(["y", "x"], np.array([[1.0, 0, 0], [0.1, 0.1, 0.8]]))) == 1
    assert board.probabilities_of(["first"], np.array([1]))["first"][0] == pytest.approx([0.2, 0.3, 0.5])
    with pytest.raises(ZooError, match="1 ids are not in the battles: z"):
        board.add("first", score_table(["z"], np.array([[1.0, 0, 0]])))
    board.discard("first")
    assert not board.answered("first").any()


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(-1, 1)), min_size=1, max_size=60), st.integers(1, 4))
def test_rows_are_dealt_once_in_order_and_evenly(rows, replicas) -> None:
    seconds, gain = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    order = by_value(gain, seconds)
    assert sorted(order) == list(range(len(rows)))
    assert (np.diff((gain / seconds)[order]) <= 1e-9).all()
    parts = share_out(order, seconds[order], [1 / replicas] * replicas)
    assert sorted(np.concatenate(parts)) == list(range(len(rows)))
    place = {row: i for i, row in enumerate(order)}
    assert all(np.diff([place[row] for row in part]).min(initial=1) > 0 for part in parts)
    loads = [seconds[part].sum() for part in parts]
    assert max(loads) - min(loads) <= seconds.max() + 1e-9


jobs = st.lists(
    st.tuples(st.sets(st.integers(0, 1), min_size=1), st.integers(0, 2), st.floats(0, 50), st.floats(0, 5)),
    min_size=1,
    max_size=8,
)


@given(jobs, st.floats(0, 100), st.floats(1, 200))
def test_making_way_is_neither_before_the_plan_nor_after_the_end(found, planned_end, work_ends) -> None:
    claims = [
        Claim(Job(members=("first",), devices=tuple(d), phase=phase, start_seconds=0, end_seconds=0), seconds, nats)
        for d, phase, seconds, nats in found
    ]
    end = must_end_by(claims[0], planned_end, claims[1:], work_ends)
    assert min(planned_end, work_ends) <= end <= work_ends
    later = [claim for claim in claims[1:] if claim.job.phase > claims[0].job.phase]
    assert makespan_after(claims[0].job, later) <= sum(claim.seconds for claim in later) + 1e-9
    if all(claim.density <= claims[0].density for claim in claims[1:]):
        assert end == work_ends


@settings(max_examples=50)
@given(st.floats(0.2, 8), st.integers(2, 30), st.integers(1, 29))
def test_pace_learns_how_much_slower_it_really_is(slowness, pieces, seen) -> None:
    pace = Pace(load_seconds=10, work_seconds=pieces * 2.0, assumed=1.5, piece_seconds=2.0)
    pace.start(100)
    now = 100 + 10 * slowness
    for _ in range(min(seen + 1, pieces)):
        now += 2 * slowness
        pace.progress(now, 2.0)
    left = pieces - min(seen + 1, pieces)
    assert pace.ratio(now) == pytest.approx(slowness)
    assert pace.remaining(now) == pytest.approx(left * 2 * slowness, abs=1e-6)
    assert pace.ratio(now + 1000) > slowness  # silence counts as slow


def test_prices_follow_characters_up_to_the_cap_and_gains_follow_the_pools() -> None:
    cost = Cost(target="cpu", load_seconds=5, seconds_per_row=0.5, seconds_per_token=0.01)
    member = plan_member("first", cost, TokenEstimate(base=10, per_character=0.5, cap=100))
    assert predicted_row_seconds(member, np.array([0, 20, 10_000])) == pytest.approx([0.6, 0.7, 1.5])
    plan = make_plan([make_pool(("first",), "linear", 1.0), make_pool(NAMES, "linear", 0.9)])
    entropy = -sum(p * np.log(p) for p in PRIOR)
    assert pool_gain(plan, (), ("first",)) == pytest.approx(entropy - 1.0)
    assert pool_gain(plan, ("first",), ("second", "third")) == pytest.approx(0.1)
    assert pool_gain(plan, ("first",), ("second",)) == 0


@given(st.floats(1, 1e6), st.floats(0, 100))
def test_work_ends_before_the_watchdog_and_the_watchdog_before_the_budget(budget, write_seconds) -> None:
    deadline = Deadline(budget, started_at=0.0)
    deadline.measured_write(write_seconds)
    deadline.measured_write(0.0)
    assert deadline.work_ends + 3 * write_seconds < deadline.watchdog_at < budget
