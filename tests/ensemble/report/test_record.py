"""What a prediction and an evaluation are recorded as: every number from what happened, and names that MLflow takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ensemble.predict.outcome import MemberOutcome, Prediction
from ensemble.report.evaluate import Line
from ensemble.report.record import evaluation_numbers, prediction_numbers, record_evaluation, record_prediction
from tests.helpers.plans import plan_member, plan_of, plan_pool, written
from zoo.scores.metric_names import find_metric


def predicted(work: Path) -> Prediction:
    return Prediction(
        plan=plan_of([plan_member("m@ab-512")], [plan_pool(("m@ab-512",), 1.0)]),
        output=work / "submission.csv",
        rows=40,
        bad_rows=2,
        budget_seconds=60.0,
        predicted_seconds=12.5,
        used_seconds=14.25,
        members=(
            MemberOutcome("m@ab-512", 30, 1, 9.0, 0.9, 0.01),
            MemberOutcome("idle@ab", 0, 0, 0.0, None, None, "no time"),
        ),
        patterns={"m@ab-512": 30, "prior": 10},
        log_loss=0.95,
        log_loss_se=None,
        stopped_by="",
        warnings=(),
        report=work / "predict.json",
    )


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return written(plan_of([plan_member("m@ab-512")], [plan_pool(("m@ab-512",), 1.0)]), tmp_path / "plan.json")


def test_a_prediction_as_numbers(tmp_path: Path) -> None:
    numbers = prediction_numbers(predicted(tmp_path))
    assert numbers["predict/seconds"] == 14.25 and numbers["predict/predicted_seconds"] == 12.5
    assert numbers["predict/prior_share"] == 10 / 40 and numbers["members"] == 1
    assert numbers["predict/rows/m/ab-512"] == 30 and numbers["predict/rows/idle/ab"] == 0
    assert numbers["predict/log_loss"] == 0.95 and "predict/log_loss_se" not in numbers


def test_an_evaluation_as_numbers() -> None:
    lines = [Line("uniform", 1.1, None, 40), Line("m@ab-512", 1.0, 0.02, 38), Line("blend", 0.9, 0.01, 40)]
    numbers = evaluation_numbers(lines)
    assert numbers == {
        "evaluate/log_loss/uniform": 1.1,
        "evaluate/log_loss/m/ab-512": 1.0,
        "evaluate/log_loss": 0.9,
        "evaluate/log_loss_se": 0.01,
        "evaluate/rows": 40.0,
    }


def test_every_name_is_in_the_list_and_fit_for_mlflow(tmp_path: Path) -> None:
    lines = [Line("label prior of the training data", 1.1, None, 40), Line("blend", 0.9, 0.01, 40)]
    for name in (*prediction_numbers(predicted(tmp_path)), *evaluation_numbers(lines)):
        assert find_metric(name) and re.fullmatch(r"[\w\-. /]+", name), name


def test_records_are_files_of_the_home_and_hold_no_path(own_home: Path, plan: Path, tmp_path: Path) -> None:
    work = own_home / "predict" / "w"
    work.mkdir(parents=True)
    record_prediction(tmp_path / "secret" / "test.csv", predicted(work))
    record_evaluation(plan, tmp_path / "secret" / "test.csv", tmp_path / "s.csv", [Line("blend", 0.9, 0.01, 40)], 0.5)
    kept = {path.name.partition("-")[0]: json.loads(path.read_text()) for path in (own_home / "predictions").iterdir()}
    assert kept.keys() == {"prediction", "evaluation"}
    assert kept["prediction"]["build"] == kept["evaluation"]["build"] and kept["prediction"]["params"]["battles"] == "test.csv"
    assert str(tmp_path) not in json.dumps(kept)


def test_what_cannot_be_kept_costs_a_line_and_nothing_else(
    own_home: Path, plan: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_home.mkdir()
    (own_home / "predictions").write_text("a file where a folder should be")
    (own_home / "predict").mkdir()
    record_prediction(tmp_path / "test.csv", predicted(own_home / "predict"))
    assert len(caplog.records) == 1 and "is not kept for MLflow" in caplog.text
