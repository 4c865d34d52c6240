"""A stage is seen in MLflow while it runs, ends there with its process, and a dead server costs it nothing.

The stage is a program of this test: it says of itself what a training says, and waits until the test has looked.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs, train_request, trained
from tests.helpers.waiting import wait_until
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.store import LIVE, PARTIAL
from zoo.tracking import live, stages
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.sync import log_stage, sync

STAGE = """#!{python}
import json, sys, time
from pathlib import Path
out, seen = Path(sys.argv[-1]), Path({folder!r}) / "seen"
curve = [[1, 1.5], [2, 1.25], [3, 1.125]]
with (out / "live.jsonl").open("a", buffering=1) as live:
    for step, value in curve[:2]:
        print(json.dumps(dict(name="train/loss", step=step, value=value, time=1000.0 + step)), file=live)
        print(json.dumps(dict(name="held_out/log_loss", step=step, value=value / 2, time=1000.0 + step)), file=live)
    print(json.dumps(dict(progress="train: 2 of 3 steps")), file=live)
    live.write('{{"half of a li')
while not seen.exists():
    time.sleep(0.02)
if "refuse" in seen.read_text():
    (out / "error.json").write_text(json.dumps(dict(message="row 7: no", known=True)))
    sys.exit(2)
(out / "live.jsonl").unlink()
curves = {{"train/loss": curve, "held_out/log_loss": [[s, v / 2] for s, v in curve]}}
(out / "result.json").write_text(json.dumps(dict(metrics={{"train/loss": 1.125, "val/log_loss": 0.5}}, curves=curves)))
"""


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, settings = tmp_path / "stage", tmp_path / "settings.toml"
    script.write_text(STAGE.format(python=sys.executable, folder=str(tmp_path)))
    script.chmod(0o755)
    settings.write_text(f'[environments]\ntrain = "{script}"\n')
    monkeypatch.setenv("ZOO_SETTINGS", str(settings))
    monkeypatch.setattr(live, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.05)


def train(home: Path, say: Any = lambda _: None) -> None:
    from zoo.entries.load import load_entry

    run_chain([train_request()], load_entry("smollm2-135m"), home / "store", say=say)


def points(run_id: str, name: str) -> list[tuple[int, float]]:
    history = tracking_client.connect().get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in history)


def the_run() -> Any:
    (run,) = all_runs("stage")
    return run


def program(home: Path) -> subprocess.Popen[bytes]:
    """The training in a process of its own, that can be killed."""
    code = "from zoo.tracking import live; live.FIRST_SECONDS = 0; live.EVERY_SECONDS = 0.05\n"
    code += f"from tests.zoo.tracking.test_live import train; import pathlib; train(pathlib.Path({str(home)!r}))"
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "ZOO_HOME": str(home)})


def is_seen() -> bool:
    return any(run.data.tags.get("zoo.progress") and points(run.info.run_id, "curve/train/loss") for run in all_runs("stage"))


@pytest.mark.services
@pytest.mark.parametrize("ending", ["well", "refuse", "killed"])
def test_a_stage_is_seen_as_it_runs_and_ends_with_its_process(ending: str, home: Path, tmp_path: Path) -> None:
    process = program(home)
    try:
        wait_until(is_seen, "the running stage in MLflow", process)
        run = the_run()
        assert run.info.status == "RUNNING" and run.data.tags["zoo.progress"] == "train: 2 of 3 steps"
        assert points(run.info.run_id, "curve/train/loss") == [(1, 1.5), (2, 1.25)]
        assert run.data.params["train.learning_rate"] == "0.0003"
        assert log(add_member(home, "meanwhile")), "another command leaves the living one's run alone"
        assert "RUNNING" in {r.info.status for r in all_runs("stage")}
        if ending == "killed":
            process.send_signal(signal.SIGKILL)
    finally:
        (tmp_path / "ending").write_text(ending)
        (tmp_path / "ending").rename(tmp_path / "seen")  # whole when it is seen
        process.wait()
    if ending == "killed":
        assert log(add_member(home, "next"))
    statuses = [r.info.status for r in all_runs("stage") if r.data.tags["zoo.stage"] == "train"]
    assert statuses == [{"well": "FINISHED", "refuse": "FAILED", "killed": "KILLED"}[ending]]
    assert not list(home.rglob("*.live"))
    if ending != "well":  # the same command goes on, in the same run
        train_it_to_the_end(home, tmp_path)
    (run,) = [r for r in all_runs("stage") if r.data.tags["zoo.stage"] == "train"]
    assert run.info.status == "FINISHED" and "zoo.progress" not in run.data.tags
    assert points(run.info.run_id, "curve/train/loss") == [(1, 1.5), (2, 1.25), (3, 1.125)], "no point twice"
    assert points(run.info.run_id, "held_out/log_loss") == [(1, 0.75), (2, 0.625), (3, 0.5625)]
    assert run.data.metrics["train/loss"] == 1.125 and run.data.tags["mlflow.parentRunId"]
    assert sync(home / "store") == 0


def train_it_to_the_end(home: Path, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("well")
    train(home)


def test_a_dead_server_costs_a_stage_nothing_and_is_said_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter22@127.0.0.1:9")
    (tmp_path / "seen").write_text("well")
    train(home)
    lines = [record.getMessage() for record in caplog.records if record.name == "zoo" and record.levelname == "WARNING"]
    assert len(lines) == 1 and "run `zoo sync`" in lines[0] and "hunter22" not in caplog.text


def test_a_server_that_hangs_costs_a_stage_nothing_and_is_made_up_for(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A real socket that takes every connection and never answers: the stage ends with its artifact, `zoo sync` logs it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        (tmp_path / "seen").write_text("well")
        train(home)
    assert list((home / "store").glob("train-*/manifest.json"))
    lines = [record.getMessage() for record in caplog.records if record.name == "zoo" and record.levelname == "WARNING"]
    assert len(lines) == 1 and "run `zoo sync`" in lines[0]
    assert sync(home / "store") == 1
    assert points(the_run().info.run_id, "held_out/log_loss") == [(1, 0.75), (2, 0.625), (3, 0.5625)]


@pytest.mark.parametrize("failures", [2, 100])
def test_points_wait_while_a_store_fails_for_a_while(failures: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some failures everything is there; after as many as cost FAILURE_SECONDS it is asked no more for this stage."""
    artifact, write, asked = trained(home / "store"), live._log, list[int]()

    def fail_first(client: Any, run_id: str, said: list[dict[str, Any]]) -> None:
        asked.append(len(said))
        if len(asked) <= failures:
            raise TimeoutError("no answer")
        write(client, run_id, said)

    monkeypatch.setattr(live, "_log", fail_first)
    monkeypatch.setattr(live, "MOST_WAITING", 50)
    path = home / "store" / PARTIAL / artifact.path.name / LIVE
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"name": "x/y", "step": i, "value": i, "time": 1.0}) + "\n" for i in range(80)))
    with live.shown_live(artifact.manifest.request, None, home / "store") as shown:
        if failures == 2:
            wait_until(lambda: len(asked) > 2 and bool(points(the_run().info.run_id, "x/y")), "the points")
            seen = points(the_run().info.run_id, "x/y")
        else:
            wait_until(lambda: not followers(), "the end of the thread")
    assert max(asked) <= 50, "what waits is bounded"
    if failures == 2:
        assert seen and seen[-1] == (79, 79.0)
        assert points(the_run().info.run_id, "system/cpu_utilization_percentage")
    else:
        assert len(asked) == live.FAILURE_SECONDS / live.LEAST_FAILURE_SECONDS and shown.seconds_left > 0


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "live"]


@pytest.mark.parametrize("late", [True, False])
def test_a_run_starts_with_its_stage_and_none_after_its_end(late: bool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`late`: the thread has its client only when the stage has ended and is logged."""
    artifact, go_on = trained(home / "store"), threading.Event()
    connect = live.connect

    def slow_connect() -> Any:
        go_on.wait()
        return connect()

    monkeypatch.setattr(live, "connect", slow_connect)
    before = 1000 * time.time()
    with live.shown_live(artifact.manifest.request, None, home / "store") as shown:
        entered = 1000 * time.time()
        if not late:
            go_on.set()
            wait_until(lambda: bool(shown.runs), "the run")
            assert the_run().info.status == "RUNNING"
            assert before - 1 <= the_run().info.start_time <= entered + 1
    manifest = artifact.manifest.model_copy(update={"created_at": datetime.datetime.now(datetime.UTC)})
    assert log_stage(manifest, artifact.path, seconds=shown.seconds_left)
    go_on.set()
    for thread in followers():
        thread.join()
    assert the_run().info.status == "FINISHED" and the_run().info.start_time <= the_run().info.end_time
    assert log(add_member(home, "next")) and not list(home.rglob("*.live"))


def test_a_server_that_stops_answering_at_a_stages_end_is_asked_no_more(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    artifact, answered = trained(home / "store"), threading.Event()
    monkeypatch.setattr(live, "SECONDS", 0.1)
    monkeypatch.setattr(live, "_log", lambda *_: answered.wait())
    with live.shown_live(artifact.manifest.request, None, home / "store") as shown:
        wait_until(lambda: bool(shown.runs), "the run")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "connect", lambda *_: pytest.fail("asked again"))
        assert shown.seconds_left == 0 and not log_stage(artifact.manifest, artifact.path, seconds=shown.seconds_left)
    assert len([record for record in caplog.records if "run `zoo sync`" in record.getMessage()]) == 1
    answered.set()
    for thread in followers():
        thread.join()
    assert log(add_member(home, "next")), "the next command makes up for it"
    assert {run.info.status for run in all_runs("stage")} == {"FINISHED"}


def test_a_refused_stage_raises_its_own_error(home: Path, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("refuse")
    with pytest.raises(ZooError, match="row 7: no"):
        train(home)


def test_lines_are_read_once_and_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    assert live.read_lines(path, 0) == (0, [])
    path.write_text('{"a": 1}\n{"b"')
    place, said = live.read_lines(path, 0)
    assert said == [{"a": 1}] and live.read_lines(path, place) == (place, [])
    path.write_text('{"a": 1}\n{"b": 2}\n')
    assert live.read_lines(path, place) == (len(path.read_text()), [{"b": 2}])


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b\n[1]\n\xff\n' + b"[" * 100_000 + b'\n{"b": 2}\n')
    assert live.read_lines(path, 0) == (path.stat().st_size, [{"a": 1}, {"b": 2}])
