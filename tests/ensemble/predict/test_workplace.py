"""Where a prediction works: a full disk, many attempts, and no descriptor of the lock that is another file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from ensemble.predict import workplace
from tests.helpers.predictions import ROWS, make_plan, member, run
from zoo.store import write_atomic


def fill(monkeypatch: pytest.MonkeyPatch, full: Path) -> None:
    """Let nothing more be written below a folder."""

    def write(path: Path, content: str | bytes) -> None:
        if path.is_relative_to(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_atomic(path, content)

    for module in ("workplace", "outcome", "attempts"):
        monkeypatch.setattr(f"ensemble.predict.{module}.write_atomic", write)


def test_a_full_home_moves_the_work_elsewhere_and_the_submission_is_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "tmp"))
    fill(monkeypatch, place / "home")
    done = run_without_report(place)
    assert done.patterns == {"good@ab-512": ROWS - 1, "prior": 1} and done.exit_code == 0
    assert "No space left on device; working in " in capfd.readouterr().err
    assert "`ensemble evaluate` will not find" in done.warnings[-1]
    assert not list((place / "tmp").iterdir())


def test_a_home_that_is_no_folder_is_as_good_as_a_full_one(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    (place / "home" / "predict").write_text("a file")
    done = run_without_report(place, plan)
    assert done.patterns == {"good@ab-512": ROWS - 1, "prior": 1}


def test_with_no_room_anywhere_the_prior_is_the_submission(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "tmp"))
    fill(monkeypatch, place)
    done = run_without_report(place)
    assert done.patterns == {"prior": ROWS} and done.exit_code == 3


def test_what_is_waited_for_is_noted_before_a_member_starts(place: Path) -> None:
    run(place, make_plan(place, [member(place, "good@ab-512"), member(place, "good.other@ab-512")]))
    (noted,) = (place / "home" / "predict").glob("*/checkpoints.json")
    assert json.loads(noted.read_text()) == ["good", "good-other"]


def test_attempts_are_counted_beyond_a_hundred(place: Path) -> None:
    plan = make_plan(place, [member(place, "dying@ab-512")])
    job = run(place, plan).report.parent / "job-00"
    (job / "attempt-00").rename(job / "attempt-100")
    (job / "attempt-100" / "ids.txt").write_text("0\n")
    run(place, plan)
    assert (job / "attempt-101").exists()


def test_a_folder_that_holds_a_lock_names_who_holds_it(tmp_path: Path) -> None:
    with workplace.only_one(tmp_path, 0.0, print) as lock:
        assert lock is not None
        assert workplace._holders(tmp_path / workplace.LOCK) == {}  # but for this process


def run_without_report(place: Path, plan: Path | None = None):  # type: ignore[no-untyped-def]
    """Predict in this process where no report can be left."""
    from ensemble.predict.run import predict
    from tests.helpers.predictions import BUDGET, check_file

    plan = plan or make_plan(place, [member(place, "good@ab-512")])
    done = predict(plan, place / "battles.csv", place / "out.csv", started_at=0.0, budget_seconds=BUDGET)
    check_file(place / "out.csv")
    assert sum(done.patterns.values()) == ROWS
    return done
