"""Which ways to read rows are worth their hours: the lower hull of loss against hours, without what noise may have made."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.contracts import Variant, changed
from zoo.report.caps import caps_page
from zoo.scores.caps import CapsReport, Reading, caps_metrics, worth_their_hours
from zoo.scores.metric_names import find_metric
from zoo.scores.metrics import mean_and_error

points = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=9, unique_by=lambda point: point[0])


@given(points)
def test_without_noise_it_is_the_lower_hull_from_the_cheapest_down_to_the_lowest_loss(points: list[tuple[int, int]]) -> None:
    """Oracle: a point is on it if no chord between two others passes below or through it, and nothing cheaper is as low."""
    hours, losses = zip(*points, strict=True)
    found = worth_their_hours(np.tile(np.array(losses, dtype=float), (6, 1)), hours, np.arange(6))
    on_hull = set()
    for j, (hour, loss) in enumerate(points):
        beaten = any(other <= loss for cheaper, other in points if cheaper < hour)
        under = any(
            loss * (c - a) > b * (c - hour) + d * (hour - a)
            for (a, b), (c, d) in itertools.product(points, points)
            if a < hour < c
        )
        if not beaten and not under:
            on_hull.add(j)
    between = {  # on a chord, where one end and the other give the same slope: either may be named or left out
        j
        for j, (hour, loss) in enumerate(points)
        if any(
            loss * (c - a) == b * (c - hour) + d * (hour - a)
            for (a, b), (c, d) in itertools.product(points, points)
            if a < hour < c
        )
    }
    assert set(found) | between == on_hull | between
    assert [hours[j] for j in found] == sorted(hours[j] for j in found)


@given(st.integers(0, 2000), st.integers(2, 7), st.integers(3, 40))
def test_each_gains_more_than_an_error_over_the_one_before_and_no_dearer_one_over_the_last(
    seed: int, ways: int, prompts: int
) -> None:
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, prompts, 60)
    losses = generator.normal(1, 0.3, (60, 1)) + generator.normal(0, 0.1, (60, ways)) - 0.05 * generator.random(ways)
    hours = generator.random(ways)
    found = worth_their_hours(losses, hours, groups)
    assert found[0] == hours.argmin()
    for before, after in itertools.pairwise(found):
        gain, error = mean_and_error(losses[:, before] - losses[:, after], groups)
        assert gain > error and hours[after] > hours[before]
    for j in np.flatnonzero(hours > hours[found[-1]]):
        gain, error = mean_and_error(losses[:, found[-1]] - losses[:, j], groups)
        assert not gain > error


def test_of_equal_hours_the_lower_loss_stands() -> None:
    losses = np.tile([1.0, 0.9, 0.8, 0.7], (5, 1))
    assert worth_their_hours(losses, [1.0, 1.0, 2.0, 2.0], np.arange(5)) == [1, 3]


def test_metrics_are_named_and_what_is_not_known_is_left_out() -> None:
    reading = Reading(
        variant=Variant(max_tokens=256),
        log_loss=1.0,
        log_loss_se=None,
        change=0.0,
        change_se=0.0,
        rows=9,
        tokens=200.0,
        cut=3,
        shared=0,
        hours=(0.5, 1.0, 2.0),
        worthwhile=True,
    )
    report = CapsReport(
        entry="e", target="t", rows=25_000, reference="ab-256", battles=9, prompts=1, guessing=1.1, readings=(reading,)
    )
    found = caps_metrics(report)
    assert found["caps/ab-256/hours"] == 1.0 and "caps/ab-256/log_loss_se" not in found
    assert all(find_metric(name) for name in found) and report.worthwhile == (reading.variant,)
    for loss, warned in ((1.0, False), (1.2, True)):
        page = caps_page(changed(report, readings=(changed(reading, log_loss=loss),)), [])
        assert any("above guessing's 1.1000" in block for block in page if isinstance(block, str)) == warned
