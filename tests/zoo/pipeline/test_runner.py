"""The runner: atomic commit, resume, two runners at once, killed stages, the environment a stage gets."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tests.helpers.requests import merge_request
from tests.helpers.waiting import wait_until
from zoo.errors import OutOfMemory, ZooError
from zoo.pipeline.runner import run_stage, stage_error
from zoo.pipeline.runners.environment import stage_environment
from zoo.store import find, list_artifacts

# A stand-in interpreter: it obeys the stage protocol (NAME request.json OUT) and does what PLAN says, one word a run.
STAND_IN = """\
#!{python}
import json, os, sys, time
from pathlib import Path
out = Path(sys.argv[-1])
runs = Path({plan!r}).parent / "runs"
with runs.open("a") as file:
    file.write("run\\n")
plan = Path({plan!r}).read_text().split()
step = plan[min(len(runs.read_text().split()), len(plan)) - 1]
(out / "work.txt").open("a").write("piece\\n")
if step == "die":
    os.kill(os.getpid(), 9)
if step == "refuse":
    (out / "error.json").write_text(json.dumps({{"message": "row 7: no", "known": True}}))
    sys.exit(2)
if step == "hang":
    (runs.parent / "pid").write_text(str(os.getpid()))
    runs.with_name("hangs").touch()
    time.sleep(900)
(out / "result.json").write_text(json.dumps({{"metrics": {{"val/log_loss": 1.0}}}}))
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make stage `merge` run the stand-in with a plan; returns the function that sets the plan."""
    plan, script, settings = tmp_path / "plan", tmp_path / "stand_in", tmp_path / "settings.toml"
    script.write_text(STAND_IN.format(python=sys.executable, plan=str(plan)))
    script.chmod(0o755)
    settings.write_text(f'[environments]\nmerge = "{script}"\n')
    monkeypatch.setenv("ZOO_SETTINGS", str(settings))
    return plan.write_text


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().split())


@pytest.mark.parametrize("left", [None, "", "[]", "{}", '{"message": 3}', "\\xff"])
def test_a_failure_is_told_in_one_line_whatever_the_stage_left(tmp_path: Path, left: str | None) -> None:
    if left is not None:
        (tmp_path / "error.json").write_text(left)
    memory = OutOfMemory("").exit_code  # what SIGKILL mostly means
    for code, expected in ((1, 1), (-signal.SIGKILL, memory), (-40, 1), (-64, 1)):
        told = stage_error(merge_request(tmp_path), tmp_path, code)
        assert told.exit_code == expected and "\n" not in str(told) and str(tmp_path) in str(told)


def test_a_finished_stage_is_taken_from_the_store(tmp_path: Path, stage) -> None:
    stage("work")
    store = tmp_path / "store"
    first = run_stage(merge_request(tmp_path), store)
    again = run_stage(merge_request(tmp_path), store)
    assert runs(tmp_path) == 1 and first.path == again.path
    assert first.manifest.metrics == {"val/log_loss": 1.0}
    assert [a.path for a in list_artifacts(store)] == [first.path]
    assert not (store / ".partial" / first.path.name).exists()


def test_a_killed_stage_leaves_nothing_that_looks_finished_and_goes_on(tmp_path: Path, stage) -> None:
    stage("die work")
    store, request = tmp_path / "store", merge_request(tmp_path)
    with pytest.raises(ZooError, match=r"SIGKILL.*goes on from where it stopped"):
        run_stage(request, store)
    assert list_artifacts(store) == [] and find(store, request) is None
    artifact = run_stage(request, store)
    assert (artifact.path / "work.txt").read_text().count("piece") == 2  # the second run had the first one's folder


def test_a_stage_s_own_error_comes_through_as_one_line(tmp_path: Path, stage) -> None:
    stage("refuse")
    with pytest.raises(ZooError, match=r"^row 7: no$") as caught:
        run_stage(merge_request(tmp_path), tmp_path / "store")
    assert caught.value.exit_code == 2


def test_two_runners_of_one_request_run_it_once(tmp_path: Path, stage) -> None:
    stage("work")
    store, request, paths = tmp_path / "store", merge_request(tmp_path), []
    threads = [threading.Thread(target=lambda: paths.append(run_stage(request, store).path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1 and len(paths) == 3 and runs(tmp_path) == 1


def test_a_killed_runner_s_stage_keeps_the_lock_until_it_ends(tmp_path: Path, stage) -> None:
    """A stage that outlives its runner must not share its folder with a second one."""
    stage("hang work")
    store, request = tmp_path / "store", merge_request(tmp_path)
    program = textwrap.dedent(f"""
        from pathlib import Path
        from zoo.contracts import MergeRequest
        from zoo.pipeline.runner import run_stage
        request = MergeRequest.model_validate_json({request.model_dump_json()!r})
        run_stage(request, Path({str(store)!r}))
    """)
    runner = subprocess.Popen([sys.executable, "-c", program])
    wait_until((tmp_path / "hangs").exists, "the stage's start", runner)
    runner.kill()
    runner.wait()
    waited: list[str] = []
    thread = threading.Thread(target=lambda: run_stage(request, store, say=waited.append), daemon=True)
    thread.start()
    wait_until(lambda: any("waiting" in text for text in waited), "the second runner's word that it waits")
    assert runs(tmp_path) == 1
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not thread.is_alive(), "the second runner's end")
    assert runs(tmp_path) == 2 and len(list_artifacts(store)) == 1


def test_secrets_of_the_caller_do_not_reach_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    assert "s3cret" not in stage_environment("train").values()
    monkeypatch.setenv("ZOO_STUDY_STORAGE", "postgresql://zoo@db/zoo")
    monkeypatch.setenv("ZOO_REMOTE", "sftp://me@host/zoo")
    assert not {"ZOO_STUDY_STORAGE", "ZOO_REMOTE"} & set(stage_environment("score")), "nor do scripts of arrays say who one is"
    assert stage_environment("fetch")["HF_TOKEN"] == "s3cret"


def test_training_keeps_memory_in_segments_that_grow_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PYTORCH_CUDA_ALLOC_CONF"
    monkeypatch.delenv(name, raising=False)
    assert stage_environment("train")[name] == "expandable_segments:True"
    assert name not in stage_environment("score")
    monkeypatch.setenv(name, "backend:native")
    assert stage_environment("train")[name] == "backend:native"
