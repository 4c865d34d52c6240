"""The soak's own checks: each counts the fault that is planted for it, and nothing where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.predictions import ROWS, make_plan, member, prepare
from tests.soak import predictions
from tests.soak.homes import check_end, check_rows, check_store, check_tracking
from tests.soak.ledger import COLUMNS, Counts, Ledger
from tests.soak.processes import Ended, environment, run
from zoo.data.battles import read_battles


def seen(counts: Counts) -> set[str]:
    return {column for column in COLUMNS if getattr(counts, column)}


def test_an_interrupted_soak_goes_on_and_its_table_has_every_case(tmp_path: Path) -> None:
    runs: list[str] = []

    def act(counts: Counts) -> None:
        runs.append("ran")
        counts.add("rows_lost", "three", 3)

    for _ in range(2):
        ledger = Ledger(tmp_path / "ledger.jsonl", 0)
        ledger.run("part/kind/0", act, lambda text: None)
    Ledger(tmp_path / "ledger.jsonl", 1).run("part/kind/0", act, lambda text: None)
    assert len(runs) == 2, "once a seed"
    assert ledger.faults == 3 and "| part/kind | 1 | 3 | 0 |" in ledger.table()


def test_whole_artifacts_and_rows_count_nothing_and_damage_counts(own_home: Path) -> None:
    artifact = add_member(own_home, "first")
    ids = set(read_battles(own_home.parent / "battles.csv").ids)
    counts = Counts()
    check_store(own_home, counts)
    check_rows(own_home, {"import": ids}, counts)
    assert not counts.notes

    check_rows(own_home, {"import": ids | {"another"}, "score": {"a", "b"}}, counts)
    assert counts.rows_lost == 3 and seen(counts) == {"rows_lost"}

    counts, (table,) = Counts(), artifact.glob("*/scores.parquet")
    frame = pd.read_parquet(table)
    pd.concat([frame, frame.iloc[:2]]).to_parquet(table)
    (own_home / "store" / "score-0").mkdir()
    (own_home / "store" / ".partial" / "train-0").mkdir(parents=True)
    check_store(own_home, counts)
    assert counts.half_artifacts == 3, counts.notes
    check_rows(own_home, {"import": ids}, counts)
    assert seen(counts) == {"half_artifacts", "rows_doubled"}


@pytest.mark.services
def test_a_database_without_a_run_or_with_one_that_never_ended_is_counted(own_home: Path, tmp_path: Path) -> None:
    from zoo.tracking.client.connection import connect

    add_member(own_home, "first")
    assert log(add_member(own_home, "second"))
    counts = Counts()
    check_tracking(own_home, tmp_path, counts)
    assert not counts.notes, "the soak's own sync logs what was not"

    connect().create_run("0", tags={"zoo.fingerprint": "of nothing"})
    check_tracking(own_home, tmp_path, counts)
    assert seen(counts) == {"tracking_broken"}
    (own_home / "mlflow.db").unlink()
    (own_home / "mlflow.db").mkdir()
    check_tracking(own_home, tmp_path, counts)
    assert counts.tracking_broken > 1


def test_ends_that_may_not_be_are_counted() -> None:
    for ended, column in (
        (Ended(None, 9.0, False, "", ""), "hangs"),
        (Ended(1, 9.0, False, "Traceback (most recent call last):\n", ""), "tracebacks"),
        (Ended(1, 9.0, False, "error: no\n", ""), "invalid_files"),
    ):
        counts = Counts()
        check_end(ended, counts)
        assert seen(counts) == {column}
    for ended in (Ended(0, 1.0, False, "", ""), Ended(None, 1.0, True, "", "")):
        counts = Counts()
        check_end(ended, counts)
        assert not counts.notes


def test_a_killed_command_and_its_children_are_gone(tmp_path: Path) -> None:
    prepare(tmp_path)
    plan = make_plan(tmp_path, [member(tmp_path, "deaf@ab-512")])
    command = ["ensemble", "predict", str(plan), "battles.csv", "-o", "out.csv", "--budget", "1h"]
    ended = run(command, tmp_path, environment(tmp_path / "home"), kill_after=0.5)
    assert ended.killed and not ended.hung


def test_a_submission_that_lost_a_row_or_came_late_is_counted(tmp_path: Path) -> None:
    right = [",".join([str(i), *("0.8" if i % 3 == label else "0.1" for label in range(3))]) for i in range(ROWS)]
    prior = [f"{i},0.4,0.35,0.25" for i in range(ROWS)]

    def judge(rows: list[str], code: int = 0, seconds: float = 1.0) -> set[str]:
        counts = Counts()
        (tmp_path / "out.csv").write_text("\n".join(["id,winner_model_a,winner_model_b,winner_tie", *rows]) + "\n")
        predictions.check_prediction(tmp_path, Ended(code, seconds, False, "", ""), counts)
        return seen(counts)

    assert judge(right) == judge(prior, 3) == judge([*right[:10], *prior[10:]]) == set()
    assert judge(right[1:], seconds=predictions.BUDGET_SECONDS + 1) == {"rows_lost", "late"}
    assert judge([*right, right[0]]) == {"rows_doubled", "invalid_files"}
    assert judge(right[::-1]) == {"invalid_files"}
    assert judge([*right[:-1], "39,nan,0.3,0.4"]) == {"invalid_files"}
    assert judge(prior) == judge(right, 3) == {"invalid_files"}, "an exit code that does not say what is in the file"
    assert judge(["0,0.1,0.8,0.1", *right[1:]]) == {"invalid_files"}, "what no honest member said"


def test_every_place_of_a_plan_can_be_edited() -> None:
    raw = json.loads('{"a": 1, "b": [{"c": null}, 2]}')
    assert set(predictions.places(raw)) == {("a",), ("b",), ("b", 0), ("b", 0, "c"), ("b", 1)}
