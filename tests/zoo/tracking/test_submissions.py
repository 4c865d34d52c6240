"""What the board said of plans: a file of the home first, then the build's run, whenever MLflow can be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs
from zoo.store import read_manifest
from zoo.tracking.home import kept_uses
from zoo.tracking.submissions import PRIVATE, PROMISE, PROMISE_SE, PUBLIC, keep_submission, read_submissions
from zoo.tracking.sync import log_build, log_uses, sync

PROMISED = {PROMISE: 0.99, PROMISE_SE: 0.004}
PLAN = {"dataset_digest": "d" * 64}


def keep(plan: dict, public: float, *, private: float | None = None, note: str = "") -> Path:
    numbers = {PUBLIC: public, **PROMISED} | ({} if private is None else {PRIVATE: private})
    return keep_submission(plan, numbers, note=note, params={"plan": "plan.json"})


def built(home: Path) -> dict:
    """A logged build's plan."""
    first = add_member(home, "first")
    assert log(first)
    plan = {"dataset_digest": read_manifest(first).request.inputs["battles"].fingerprint, "members": [{"name": "first"}]}
    assert log_build(plan, {"val/log_loss": 0.99}, {"first": read_manifest(first).fingerprint})
    return plan


def test_scores_stand_in_the_run_of_the_build_and_in_one_of_their_own(home: Path) -> None:
    plan = built(home)
    keep(plan, 0.98, note="both orders")
    assert log_uses()
    (build,), (own,) = all_runs("build"), all_runs("submission")
    assert build.data.metrics["board/public"] == own.data.metrics["board/public"] == 0.98
    assert build.data.metrics["val/log_loss"] == own.data.metrics["promise/log_loss"] == 0.99
    assert own.data.tags["zoo.note"] == "both orders" and own.data.tags["mlflow.parentRunId"] == build.info.run_id
    assert sync(home / "store") == 0


def test_what_is_told_later_is_added_everywhere_and_nothing_twice(home: Path) -> None:
    plan = built(home)
    path = keep(plan, 0.98, note="first")
    assert log_uses()
    before = path.read_bytes()
    keep(plan, 0.98)
    assert path.read_bytes() == before, "nothing new was told"
    keep(plan, 0.98, private=0.97)
    assert log_uses()
    (one,) = read_submissions()
    assert (one.public, one.private, one.note, one.plan) == (0.98, 0.97, "first", "plan.json")
    (build,), (own,) = all_runs("build"), all_runs("submission")
    assert build.data.metrics["board/private"] == own.data.metrics["board/private"] == 0.97
    keep(plan, 0.98, private=0.96, note="it was a slip")
    assert log_uses()
    (build,), (own,) = all_runs("build"), all_runs("submission")
    assert build.data.metrics["board/private"] == own.data.metrics["board/private"] == 0.96
    assert own.data.tags["zoo.note"] == "it was a slip"


def test_another_score_of_the_same_plan_is_another_submission(home: Path) -> None:
    for public in (0.98, 0.979):
        keep(PLAN, public)
    assert [one.public for one in read_submissions()] == [0.98, 0.979]
    assert sync(home / "store") == 2 and sync(home / "store") == 0


def test_a_store_that_is_down_loses_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    keep(PLAN, 0.98)
    assert not log_uses() and "what the board said is kept: run `zoo sync`" in caplog.text
    assert [one.public for one in read_submissions()] == [0.98]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert log_uses() and len(all_runs("submission")) == 1


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"kind": "submission"})])
def test_a_broken_file_hides_no_other_and_gives_way(content: str, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = keep(PLAN, 0.98), keep(PLAN, 0.97)
    path.write_text(content)
    assert [one.public for one in read_submissions()] == [0.97] and str(path) in caplog.text
    assert keep(PLAN, 0.98) == path and {one.public for one in read_submissions()} == {0.97, 0.98}


def test_a_kill_between_the_file_and_mlflow_is_made_good_by_the_next_command(home: Path) -> None:
    keep(PLAN, 0.98)
    assert all_runs("submission") == []
    assert log(add_member(home, "next")) and len(all_runs("submission")) == 1
    assert not list(kept_uses().glob("*.tmp"))
