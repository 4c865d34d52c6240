"""The axis of budgets has enough times that people say."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from zoo.report.drawing import round_times


@pytest.mark.parametrize(
    ("low", "high"), [(5_000, 24_000), (3, 70), (60, 700), (1_500, 11_000), (30_000, 200_000), (10, 300_000)]
)
def test_a_range_of_budgets_has_several_ticks_in_order(low: float, high: float) -> None:
    axes = Figure().subplots()
    axes.set_xscale("log")
    round_times(axes, low, high)
    ticks = axes.get_xticks().tolist()
    assert len(ticks) >= 3 and ticks == sorted(set(ticks)) and low <= ticks[0] and ticks[-1] <= high
    assert len({label.get_text() for label in axes.get_xticklabels()}) == len(ticks)
