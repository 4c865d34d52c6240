"""Budgets as people write them, and margins with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.budget.margin import choose_margin, warn_of_kinds
from zoo.contracts import Cost
from zoo.errors import ZooError
from zoo.report.duration import format_seconds, parse_budget
from zoo.targets import load_target, machine_fingerprint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9h", 32400), ("5m", 300), ("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400), (" 2H 5M ", 7500), ("1d", 86400)],
)
def test_budgets_are_read_as_people_write_them(text, seconds):
    assert parse_budget(text) == seconds


OTHER_DIGITS = ("\u0669h", "\u0669\u0660")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "9x",
        "9h!",
        "-5m",
        "0s",
        "nan",
        "inf",
        "h9",
        "five minutes",
        "9h9h",
        "5m1h",
        "999999999999h",
        "31d",
        *OTHER_DIGITS,
        "1_000",
        "1e3",
    ],
)
def test_what_is_not_a_budget_is_refused(text):
    with pytest.raises(ZooError, match="budget"):
        parse_budget(text)


@given(st.integers(0, 300), st.integers(0, 59), st.integers(1, 59))
def test_hours_minutes_and_seconds_add_up(hours, minutes, seconds):
    assert parse_budget(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def test_shown_times_never_say_less_than_there_is():
    assert format_seconds(12.34) == "12.3 s"
    assert format_seconds(-0.0) == format_seconds(-0.04) == "0.0 s", "what saves nothing has no sign"
    assert format_seconds(250) == "4 min 10 s"
    assert format_seconds(32340.5) == "9 h 0 min"


DECLARED = Cost(target="t4x2", load_seconds=1)


def here(target: str) -> Cost:
    return Cost(target=target, load_seconds=1, machine=machine_fingerprint())


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, int], None]]:
    """Give the machine GPUs, as its driver's tool would list them: name and memory, compute capability, how many."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(name: str, capability: str, count: int) -> None:
        lines = ["#!/bin/sh", f'case "$1" in *compute_cap*) line="{capability}" ;; *) line="{name}" ;; esac']
        tool = tmp_path / "nvidia-smi"
        tool.write_text("\n".join([*lines, *['echo "$line"'] * count]) + "\n")
        tool.chmod(0o755)
        machine_fingerprint.cache_clear()

    machine_fingerprint.cache_clear()
    yield install
    machine_fingerprint.cache_clear()


def test_the_margin_is_small_only_where_every_cost_was_measured_here(gpus):
    cpu = load_target("cpu")
    elsewhere = Cost(target="cpu", load_seconds=1, machine="another")
    assert choose_margin(cpu, [here("cpu")])[0] == 1.1
    assert choose_margin(cpu, [here("cpu"), elsewhere])[0] == cpu.margin
    assert choose_margin(cpu, [here("cpu"), DECLARED])[0] == cpu.margin


def test_a_declared_cost_gets_the_targets_margin_and_the_users_own_goes_first():
    t4x2 = load_target("t4x2")
    assert choose_margin(t4x2, [DECLARED]) == (1.5, "target t4x2: the members' costs are declared, not measured")
    assert choose_margin(t4x2, [DECLARED], 1.25) == (1.25, "given by --margin")
    with pytest.raises(ZooError, match="at least 1"):
        choose_margin(t4x2, [DECLARED], 0.9)


def test_a_gpu_target_priced_on_processors_has_the_targets_margin_and_a_warning(gpus):
    t4x2, cost = load_target("t4x2"), here("t4x2")
    margin, reason = choose_margin(t4x2, [cost])
    assert margin == 1.5
    assert "not measured on such a machine" in reason
    (warning,) = warn_of_kinds(t4x2, ["one", "two"], [cost, DECLARED])
    assert warning.startswith("one: ") and cost.machine in warning
    assert not warn_of_kinds(load_target("cpu"), ["one"], [cost])


@pytest.mark.parametrize(
    ("name", "capability", "count", "margin", "text"),
    [
        ("Tesla T4, 15360 MiB", "7.5", 2, 1.1, "measured on this very machine"),
        ("Tesla T4, 15360 MiB", "7.5", 1, 1.5, "not measured on such a machine"),
        ("Tesla P100-PCIE-16GB, 16384 MiB", "6.0", 2, 1.5, "not measured on such a machine"),
        ("NVIDIA L4, 23034 MiB", "8.9", 2, 1.5, "not measured on such a machine"),
    ],
)
def test_costs_measured_here_count_as_such_only_where_here_is_the_target(gpus, name, capability, count, margin, text):
    gpus(name, capability, count)
    found, reason = choose_margin(load_target("t4x2"), [here("t4x2")])
    assert found == margin
    assert text in reason
    assert choose_margin(load_target("cpu"), [here("cpu")])[0] == 1.5
