"""Predictions and evaluations become runs under their build's, from files of the home, whenever MLflow can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs
from zoo.store import read_manifest
from zoo.tracking.sync import log_build, sync
from zoo.tracking.uses import keep_use

NUMBERS = {"predict/seconds": 5.5, "predict/prior_share": 0.25, "predict/rows/first/ab": 30.0}


def keep(plan: dict, **params: str) -> Path:
    return keep_use("prediction", plan, seconds=5.5, numbers=NUMBERS, params={"target": "cpu", **params})


def test_a_prediction_is_logged_by_the_next_command_under_its_build(home: Path) -> None:
    first = add_member(home, "first")
    assert log(first)
    plan = {"dataset_digest": read_manifest(first).request.inputs["battles"].fingerprint, "members": [{"name": "first"}]}
    assert log_build(plan, {}, {"first": read_manifest(first).fingerprint})
    keep(plan, output=str(home / "private" / "submission.csv"))
    keep_use("evaluation", plan, seconds=0.5, numbers={"evaluate/log_loss": 0.9}, params={})
    assert all_runs("prediction") == [], "a prediction has no time for MLflow"
    assert log(add_member(home, "next"))
    (run,), (build,), (evaluation,) = all_runs("prediction"), all_runs("build"), all_runs("evaluation")
    assert run.data.metrics == NUMBERS and evaluation.data.metrics == {"evaluate/log_loss": 0.9}
    assert run.data.params == {"target": "cpu", "output": "submission.csv"}
    assert {r.data.tags["mlflow.parentRunId"] for r in (run, evaluation)} == {build.info.run_id}
    assert run.info.experiment_id == build.info.experiment_id and run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 5500
    assert sync(home / "store") == 0


def test_where_its_build_is_unknown_a_prediction_stands_by_itself(home: Path) -> None:
    keep({"dataset_digest": "d" * 64})
    assert sync(home / "store") == 1
    (run,) = all_runs("prediction")
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_broken_file_is_told_and_keeps_no_other_back(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = keep({"dataset_digest": "d" * 64})
    broken.write_text("{")
    keep({"dataset_digest": "d" * 64})
    assert sync(home / "store") == 1 and f"{broken}: not a kept prediction" in caplog.text


def test_a_database_that_is_made_again_has_them(home: Path) -> None:
    keep({"dataset_digest": "d" * 64})
    assert sync(home / "store") == 1
    (home / "mlflow.db").rename(home / "old.db")
    assert sync(home / "store") == 1 and len(all_runs("prediction")) == 1
