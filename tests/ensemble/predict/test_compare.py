"""The line that says how far a file is from the rows of the plan's promise, and what that cost in rehearsal."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.plan import End, FittingRows, HeldGroup, Plan, Robust
from ensemble.pools.features import row_features, summary_of
from ensemble.predict.compare import compare, told_of_distance
from tests.helpers.plans import plan_member, plan_of, plan_pool
from tests.helpers.shifts import calibration

ROWS = 400


def rows(seed: int, *, longer: float = 1.0, sharper: float = 1.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    tables = {name: rng.dirichlet([2 / sharper] * 3, ROWS) for name in ("a", "b")}
    return tables, rng.lognormal(6, 0.5, ROWS) * longer


def plan(**fields: object) -> Plan:
    tables, characters = rows(0)
    summary = summary_of(row_features(np.stack(list(tables.values())), characters), ["latin"] * ROWS)
    ends = (End(feature="characters", end="high", rows=100, cost=0.012, cost_se=0.004),)
    fitting = FittingRows(summary=summary, ends=ends)
    members = [plan_member("a"), plan_member("b")]
    return plan_of(members, [plan_pool(("a", "b"), 1.0)], fitting=fitting, **fields)


def told(made: Plan, tables: dict[str, np.ndarray], characters: np.ndarray, script: str = "latin") -> str:
    has = {name: ~np.isnan(table[:, 0]) for name, table in tables.items()}
    return told_of_distance(made, compare(made, tables, has, characters, [script] * len(characters)))


def test_rows_of_the_same_kind_are_called_alike():
    assert "no feature is further from theirs" in told(plan(), *rows(1))


def test_longer_rows_are_told_with_what_the_longest_quarter_cost():
    line = told(plan(), *rows(1, longer=5.0))
    assert (
        "characters 0." in line
        and "(longer)" in line
        and "without the 100 fitting rows at that end lost +0.0120 ± 0.0040" in line
    )
    assert "\n" not in line


def test_what_was_not_rehearsed_is_not_made_up():
    assert "what that costs was not rehearsed" in told(plan(), *rows(1, longer=0.2))
    assert "what that costs was not rehearsed" in told(plan(), *rows(1), script="cjk")


def test_groups_that_were_left_out_are_what_is_told_where_there_are_such():
    groups = (
        HeldGroup(name="x", rows=60, log_loss=0.9, log_loss_se=0.02),
        HeldGroup(name="y", rows=40, log_loss=1.1, log_loss_se=None),
    )
    line = told(plan(robust=Robust(column="source", by="worst", groups=groups)), *rows(1, longer=5.0))
    assert "built without source y, the plan lost 1.1000 on it" in line


def test_a_recalibrated_plan_is_compared_with_the_rows_that_it_was_recalibrated_on():
    tables, characters = rows(1, longer=5.0)
    summary = summary_of(row_features(np.stack(list(tables.values())), characters), ["latin"] * ROWS)
    made = plan(calibration=calibration(rows=ROWS, summary=summary))
    assert "like the 400 rows of votes.csv" in told(made, *rows(2, longer=5.0))


def test_lengths_are_compared_where_a_member_has_no_row():
    tables, characters = rows(1, longer=5.0)
    tables["b"] = np.full((ROWS, 3), np.nan)
    line = told(plan(), tables, characters)
    assert "characters" in line and "entropy" not in line


@pytest.mark.parametrize("made", [plan().model_copy(update={"fitting": None}), plan()])
def test_nothing_is_said_of_few_rows_or_by_a_plan_that_knows_nothing(made):
    tables, characters = rows(1)
    few = slice(0, 5 if made.fitting else ROWS)
    assert told(made, {name: table[few] for name, table in tables.items()}, characters[few]) == ""
