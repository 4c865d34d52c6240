"""Schedules: no faster than any schedule can be, whole, and without two jobs on one device at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.budget.schedule import Load, fits, fixed_seconds, lower_bound, makespan, overhead_seconds, place

SECONDS = st.floats(0, 1000)


@st.composite
def load_lists(draw, max_size=10):
    count = draw(st.integers(1, max_size))
    return [
        Load((f"m{i}",), draw(SECONDS), draw(SECONDS), wide=draw(st.booleans()), phase=draw(st.integers(0, 2)))
        for i in range(count)
    ]


@settings(max_examples=150, deadline=None)
@given(load_lists(), st.integers(1, 3))
def test_a_schedule_never_beats_its_lower_bound_and_never_overlaps(loads, devices):
    jobs = place(loads, devices)
    end = max(job.end_seconds for job in jobs)
    assert end >= lower_bound(loads, devices) - 1e-6
    assert end == pytest.approx(makespan(loads, devices), abs=1e-6)
    for one, other in itertools.combinations(jobs, 2):
        if set(one.devices) & set(other.devices):
            assert one.end_seconds <= other.start_seconds + 1e-6 or other.end_seconds <= one.start_seconds + 1e-6
        if one.phase < other.phase:
            assert one.end_seconds <= other.start_seconds + 1e-6


@settings(max_examples=100, deadline=None)
@given(load_lists(), st.integers(1, 3))
def test_every_row_of_every_member_is_scheduled_once(loads, devices):
    jobs = place(loads, devices)
    for load in loads:
        mine = [job for job in jobs if job.members == load.members]
        assert sum(job.row_share for job in mine) == pytest.approx(1)
        assert sorted(job.replica for job in mine) == list(range(mine[0].replicas))
        busy = sum((job.end_seconds - job.start_seconds) * len(job.devices) for job in mine)
        needed = load.load_seconds + load.work_seconds
        assert busy >= (needed * devices if load.wide else needed) - 1e-6


@settings(max_examples=100, deadline=None)
@given(load_lists(), st.integers(1, 3), st.floats(0, 5000))
def test_fits_agrees_with_the_makespan(loads, devices, seconds):
    length = makespan(loads, devices)
    if abs(length - seconds) > 1e-6:
        assert fits(loads, devices, seconds) >= (length <= seconds)
        assert not fits(loads, devices, seconds) or lower_bound(loads, devices) <= seconds


def test_two_one_card_models_run_side_by_side_and_one_runs_as_replicas():
    one, other = Load(("one",), 60, 1000), Load(("other",), 60, 1000)
    assert makespan([one, other], 2) == 1060
    assert makespan([one], 2) == 560
    assert makespan([Load(("split",), 60, 1000, wide=True)], 2) == 1060
    assert makespan([one, other], 1) == 2120


def test_replicas_even_out_what_whole_jobs_leave():
    loads = [Load(("long",), 10, 1000), Load(("short",), 10, 100)]
    assert makespan(loads, 2) == pytest.approx((10 + 1000 + 10 + 100 + 10) / 2)


@settings(max_examples=20, deadline=None)
@given(load_lists(max_size=7))
def test_eight_devices_are_scheduled_without_trying_everything(loads):
    loads = [replace(load, wide=False, phase=0) for load in loads]
    assert lower_bound(loads, 8) - 1e-6 <= makespan(loads, 8) <= makespan(loads, 1) + 1e-6


def test_overhead_grows_with_rows():
    assert overhead_seconds(25_000) > overhead_seconds(100) > 0


@settings(max_examples=100, deadline=None)
@given(load_lists(max_size=5), st.floats(0.5, 20))
def test_what_is_fixed_does_not_grow_with_the_rows(loads, times):
    """On one device a file of `times` the rows takes the fixed seconds once and the rest so many times."""
    rows = 1000
    overhead = overhead_seconds(rows)
    jobs = place(loads, 1, start_seconds=overhead)
    load_seconds = {load.members[0]: load.load_seconds for load in loads}
    fixed = fixed_seconds(jobs, load_seconds, overhead, rows)
    whole = max(job.end_seconds for job in jobs)
    longer = [replace(load, work_seconds=load.work_seconds * times) for load in loads]
    expected = fixed + (whole - fixed) * times
    assert overhead_seconds(0) + (overhead - overhead_seconds(0)) * times + makespan(longer, 1) == pytest.approx(expected)
