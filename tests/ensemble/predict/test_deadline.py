"""The deadline: work ends before the watchdog, the watchdog before the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ensemble.predict.deadline import SHORTEST_BUDGET_SECONDS, Deadline


@given(st.floats(SHORTEST_BUDGET_SECONDS, 1e6), st.floats(0, 100))
def test_work_ends_before_the_watchdog_and_the_watchdog_before_the_budget(budget, write_seconds) -> None:
    deadline = Deadline(budget, started_at=0.0)
    deadline.measured_write(write_seconds)
    deadline.measured_write(0.0)
    assert deadline.work_ends + 3 * write_seconds < deadline.watchdog_at < budget
