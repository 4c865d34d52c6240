"""Budgets as people write them, and margins with their reasons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.budget import choose_margin, format_seconds, parse_budget
from zoo.contracts import Cost
from zoo.errors import ZooError
from zoo.targets import load_target, machine_fingerprint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9h", 32400), ("5m", 300), ("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400), (" 2H 5M ", 7500), ("1d", 86400)],
)
def test_budgets_are_read_as_people_write_them(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "9x", "9h!", "-5m", "0s", "nan", "inf", "h9", "five minutes"])
def test_what_is_not_a_budget_is_refused(text):
    with pytest.raises(ZooError, match="budget"):
        parse_budget(text)


@given(st.integers(0, 300), st.integers(0, 59), st.integers(1, 59))
def test_hours_minutes_and_seconds_add_up(hours, minutes, seconds):
    assert parse_budget(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def test_shown_times_never_say_less_than_there_is():
    assert format_seconds(12.34) == "12.3 s"
    assert format_seconds(250) == "4 min 10 s"
    assert format_seconds(32340.5) == "9 h 0 min"


def test_the_margin_is_small_only_where_every_cost_was_measured_here():
    t4x2, cpu = load_target("t4x2"), load_target("cpu")
    here = Cost(target="cpu", load_seconds=1, machine=machine_fingerprint())
    elsewhere = Cost(target="cpu", load_seconds=1, machine="another")
    declared = Cost(target="t4x2", load_seconds=1)
    assert choose_margin(cpu, [here])[0] == 1.1
    assert choose_margin(cpu, [here, elsewhere])[0] == cpu.margin
    assert choose_margin(t4x2, [declared]) == (1.5, "target t4x2: the members' costs are declared, not measured")
    assert choose_margin(t4x2, [declared], 1.25) == (1.25, "given by --margin")
    with pytest.raises(ZooError, match="at least 1"):
        choose_margin(t4x2, [declared], 0.9)
