"""Studies of training settings become runs, from the folders in which they are left, and go on in the run that they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tracked import all_runs
from tests.helpers.tuned import report_of
from zoo.scores.metric_names import find_metric
from zoo.tracking.client.connection import connect
from zoo.tracking.sync import log_tuned, sync
from zoo.tracking.tuned import REPORT


def left(home: Path, difference: float) -> Path:
    folder = home / "experiments" / "tune-tiny-01234567"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(report_of(difference, 0.01).model_dump_json())
    (folder / "tune.html").write_text("<p>a page</p>")
    return folder


def test_a_study_is_one_run_that_goes_on_with_it(home: Path) -> None:
    assert log_tuned(left(home, -0.04)) and sync(home / "store") == 0
    (run,) = all_runs("tune")
    assert run.data.metrics["tune/difference"] == -0.04 and run.data.metrics["tune/trials"] == 6
    assert all(find_metric(name) for name in run.data.metrics) and run.data.tags["zoo.entry"] == "tiny"
    assert "-0.0400 ± 0.0100" in run.data.tags["mlflow.note.content"] and "train.rank" in run.data.tags["mlflow.note.content"]
    assert log_tuned(left(home, -0.06))
    (again,) = all_runs("tune")
    assert again.info.run_id == run.info.run_id and again.data.metrics["tune/difference"] == -0.06
    client = connect()
    assert {Path(item.path).name for item in client.list_artifacts(run.info.run_id, "study")} == {REPORT, "tune.html"}
    path = Path(client.download_artifacts(run.info.run_id, f"study/{REPORT}"))
    kept, written = path.read_text(), path.stat().st_mtime_ns
    assert "studies.db" in kept and "somebody" not in kept, "no place of the machine"
    assert sync(home / "store") == 0 and path.stat().st_mtime_ns == written, "what is logged is not sent again"


def test_a_broken_report_is_told_and_keeps_no_other_back(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    left(home, -0.04)
    broken = home / "experiments" / "tune-other-76543210" / REPORT
    broken.parent.mkdir()
    broken.write_text("{")
    assert sync(home / "store") == 1 and f"{broken}: not a study's report" in caplog.text
