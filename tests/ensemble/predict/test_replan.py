"""Replanning: rows are dealt once and in order, time is never promised twice, pace is learned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.plan import Job, TokenEstimate
from ensemble.pools.gate import spend
from ensemble.predict.replan import (
    Claim,
    Pace,
    makespan_after,
    must_end_by,
    pool_gain,
    predicted_row_seconds,
    share_out,
)
from tests.helpers.plans import PRIOR, plan_member, plan_of, plan_pool
from zoo.contracts import Cost


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(-1, 1)), min_size=1, max_size=60), st.integers(1, 4))
def test_rows_are_dealt_once_in_order_and_evenly(rows, replicas) -> None:
    seconds, gain = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    order, _ = spend(gain, seconds, 0.0)
    assert sorted(order) == list(range(len(rows)))
    assert (np.diff((gain / seconds)[order]) <= 1e-9).all()
    parts = share_out(order, seconds[order], [1 / replicas] * replicas)
    assert sorted(np.concatenate(parts)) == list(range(len(rows)))
    place = {row: i for i, row in enumerate(order)}
    assert all(np.diff([place[row] for row in part]).min(initial=1) > 0 for part in parts)
    loads = [seconds[part].sum() for part in parts]
    assert max(loads) - min(loads) <= seconds.max() + 1e-9


NAMES = ("first", "second", "third")
MEMBERS = [plan_member(name) for name in NAMES]
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
    member = plan_member("first", cost=cost, tokens=TokenEstimate(base=10, per_character=0.5, cap=100))
    assert predicted_row_seconds(member, np.array([0, 20, 10_000])) == pytest.approx([0.6, 0.7, 1.5])
    plan = plan_of(MEMBERS, [plan_pool(("first",), 1.0), plan_pool(NAMES, 0.9)])
    entropy = -sum(p * np.log(p) for p in PRIOR)
    assert pool_gain(plan, (), ("first",)) == pytest.approx(entropy - 1.0)
    assert pool_gain(plan, ("first",), ("second", "third")) == pytest.approx(0.1)
    assert pool_gain(plan, ("first",), ("second",)) == 0
