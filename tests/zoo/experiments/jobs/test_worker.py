"""Workers of a job, real processes on this host: each task is done once, whoever dies, and a failure takes no other with it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.helpers.jobs import (
    asked_folds,
    bring,
    lexical_asked,
    once_each,
    runs_logged,
    times_done,
    tiny_entry,
    weights_of,
    worker,
)
from tests.helpers.waiting import wait_until
from zoo.contracts import Input
from zoo.experiments.jobs.run import stop_job
from zoo.experiments.jobs.states import Status, note_path, progress_of, read_note, statuses
from zoo.experiments.jobs.tasks import HOST, LOGS, Asked, Job, is_made, job_of, keep_job
from zoo.experiments.jobs.view import tasks_table
from zoo.experiments.jobs.worker import MOST_DEATHS
from zoo.experiments.run import run_chain
from zoo.pipeline.starts import step_kept
from zoo.store import MANIFEST, PARTIAL

pytestmark = [pytest.mark.chain, pytest.mark.timeout(600)]


@pytest.fixture
def store(own_home: Path) -> Path:
    return own_home / "store"


def ended(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.wait(300) for process in processes]


def said(folder: Path) -> str:
    return "".join(log.read_text() for log in (folder / LOGS).glob("*.log"))


def states(found: list[Status]) -> list[str]:
    return [one.state for one in found]


def test_two_workers_do_each_task_once_and_what_fails_fails_alone(sample_csv: Path, tmp_path: Path, store: Path) -> None:
    asked = lexical_asked(sample_csv, store, 2, 3, 4)
    lost = tmp_path / "lost.csv"
    shutil.copy(sample_csv, lost)
    broken = asked[1].request.model_copy(update={"battles": Input(path=lost, fingerprint="f" * 64)})
    asked[1] = Asked(asked[1].title, None, asked[1].entry, broken)
    job = job_of(asked)
    lost.write_text("id,prompt\n1,x\n")
    folder = keep_job(job, store)
    assert ended([worker(folder), worker(folder)]) == [0, 0], said(folder)
    found = statuses(folder, job, store)
    assert states(found) == ["done", "failed", "done"]
    assert "lost.csv" in found[1].why
    assert times_done(folder, job) == {job.tasks[0].name: 1, job.tasks[2].name: 1}
    shutil.copy(sample_csv, lost)
    keep_job(job, store)
    note_path(folder, job.tasks[1]).unlink()
    assert ended([worker(folder)]) == [0] and set(states(statuses(folder, job, store))) == {"done"}, said(folder)


def test_what_was_removed_after_it_was_done_is_made_again(sample_csv: Path, store: Path) -> None:
    job = job_of(lexical_asked(sample_csv, store, 2))
    folder = keep_job(job, store)
    assert ended([worker(folder)]) == [0], said(folder)
    shutil.rmtree(store / job.tasks[0].name)
    assert states(statuses(folder, job, store)) == ["queued"]
    assert ended([worker(folder)]) == [0] and states(statuses(folder, job, store)) == ["done"], said(folder)
    note = read_note(folder, job.tasks[0])
    assert note is not None and note.deaths == 0, "nobody died"


STOPPED_BEFORE_IT_LOCKS = """
import os, signal, sys
from zoo.experiments.jobs import worker
run_chain = worker.run_chain
def stopped(*given, **named):
    os.kill(os.getpid(), signal.SIGSTOP)
    return run_chain(*given, **named)
worker.run_chain = stopped
sys.exit(worker.main(sys.argv[1:]))
"""


def test_a_worker_that_was_silent_adds_nothing_to_what_another_made_meanwhile(sample_csv: Path, store: Path) -> None:
    job = job_of(lexical_asked(sample_csv, store, 2))
    folder, (task,) = keep_job(job, store), job.tasks
    with (folder / LOGS / "silent.log").open("wb") as log:
        silent = subprocess.Popen([sys.executable, "-c", STOPPED_BEFORE_IT_LOCKS, str(folder), "4"], stdout=log, stderr=log)
    wait_until(lambda: psutil.Process(silent.pid).status() == psutil.STATUS_STOPPED, "the stop", silent)
    assert ended([worker(folder)]) == [0] and is_made(store, task.name), said(folder)
    note, made = read_note(folder, task), (store / task.name / MANIFEST).read_text()
    silent.send_signal(signal.SIGCONT)
    assert ended([silent]) == [0], said(folder)
    assert times_done(folder, job) == {task.name: 1} and "left to others" in said(folder)
    assert read_note(folder, task) == note and (store / task.name / MANIFEST).read_text() == made
    assert runs_logged(job) == once_each(job)


def test_a_worker_that_is_killed_leaves_a_training_that_another_goes_on_with(
    sample_csv: Path, tiny_llama: Path, tmp_path: Path, store: Path
) -> None:
    entry = tiny_entry("one", epochs=4)
    asked = [one for one in asked_folds(entry, sample_csv, store, tiny_llama) if one.fold == 0]
    bring(asked, store)
    job = job_of(asked)
    folder = keep_job(job, store)
    first = worker(folder)
    partial = store / PARTIAL / job.tasks[0].name
    wait_until((partial / "checkpoint").exists, "a checkpoint", first)
    wait_until(lambda: "train" in progress_of(store, job.tasks[0].name), "progress", first)
    row = tasks_table(statuses(folder, job, store), store).records()[0]
    assert row["state"] == "running" and "steps" in str(row["what"]) and "tokens_s" in str(row["what"]), row
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = worker(folder)
    assert second.wait(500) == 0, said(folder)
    assert states(statuses(folder, job, store)) == ["done"]
    assert times_done(folder, job) == {task.name: 1 for task in job.tasks}
    note = read_note(folder, job.tasks[0])
    assert note is not None and note.deaths == 1
    assert runs_logged(job) == once_each(job), "the killed worker's is gone on with"
    assert "going on from step" in (store / job.tasks[0].name / "stage.log").read_text()
    assert weights_of(store, job) == weights_here(job, asked, tmp_path / "here")


def test_deaths_count_from_the_last_checkpoint_on(
    sample_csv: Path, tiny_llama: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that gets on between deaths is never given up; one that does not is, after so many."""
    asked = [one for one in asked_folds(tiny_entry("one", epochs=40), sample_csv, store, tiny_llama) if one.fold == 0]
    bring(asked, store)
    job = job_of(asked)
    folder, (task,) = keep_job(job, store), job.tasks
    partial, steps = store / PARTIAL / task.name, [-1]
    for _ in range(2):
        process = worker(folder)
        wait_until(lambda: step_kept(partial) > steps[-1], "a checkpoint", process)
        process.kill()
        process.wait()
        steps.append(step_kept(partial))
    dies = [sys.executable, "-c", KILLED_AS_IT_BEGINS, str(folder), "4"]
    deaths = []
    for _ in range(MOST_DEATHS):
        assert subprocess.run(dies).returncode in (-signal.SIGKILL, 0)
        note = read_note(folder, task)
        assert note is not None
        deaths.append(note.deaths)
        if len(deaths) == 1:
            assert note.step == steps[-1] and note.deaths == 1, "the two before had got on"
    assert deaths == [1, 2, 3, 4, 5]
    (found,) = statuses(folder, job, store)
    assert found.state == "failed" and f"5 workers died while they were at it and it stayed at step {steps[-1]}" in found.why


KILLED_AS_IT_BEGINS = """
import os, signal, sys
from zoo.experiments.jobs import worker
worker.run_chain = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(worker.main(sys.argv[1:]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that a file system has left."""
    with suppress(OSError), (folder / "filler").open("wb", 0) as file:
        while True:
            file.write(bytes(1 << 16))
    return folder / "filler"


def test_a_host_whose_disk_is_full_begins_nothing(sample_csv: Path, small_disk: Path, store: Path) -> None:
    """As one whose temporary folder takes no file any more; another host does its work."""
    job = job_of(lexical_asked(sample_csv, store, 2))
    folder = keep_job(job, store)
    filler = fill(small_disk)
    full = worker(folder, TMPDIR=str(small_disk))
    assert ended([full]) == [3]
    assert f"{socket.gethostname()}: {small_disk}: No space left on device; free some room there" in said(folder)
    assert states(statuses(folder, job, store)) == ["queued"]
    filler.unlink()
    assert ended([worker(folder, TMPDIR=str(small_disk))]) == [0] and states(statuses(folder, job, store)) == ["done"]


def test_a_disk_that_fills_up_fails_no_training_and_nothing_half_written_counts(
    sample_csv: Path, tiny_llama: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the store's own: the worker says so and leaves the task; once there is room another goes on with it."""
    monkeypatch.setenv("ZOO_HOME", str(small_disk))
    store = small_disk / "store"
    asked = [one for one in asked_folds(tiny_entry("one", epochs=12), sample_csv, store, tiny_llama) if one.fold == 0]
    bring(asked, store)
    job = job_of(asked)
    folder, (task,) = keep_job(job, store), job.tasks
    first = worker(folder, log=tmp_path / "first.log")
    wait_until(lambda: step_kept(store / PARTIAL / task.name) > 0, "a checkpoint", first)
    filler = fill(small_disk)
    assert first.wait(200) == 3, (tmp_path / "first.log").read_text()
    last = (tmp_path / "first.log").read_text().splitlines()[-1]
    assert last.startswith(f"error: {socket.gethostname()}: {small_disk}") and "free some room" in last, last
    assert states(statuses(folder, job, store)) == ["queued"] and not is_made(store, task.name)
    filler.unlink()
    assert ended([worker(folder)]) == [0] and states(statuses(folder, job, store)) == ["done"], said(folder)
    assert "going on from step" in (store / task.name / "stage.log").read_text()
    assert weights_of(store, job) == weights_here(job, asked, tmp_path / "here")


def weights_here(job: Job, asked: list[Asked], store: Path) -> dict[str, dict[str, str]]:
    """What this host leaves by itself, in a store of its own."""
    moved = [one.request.model_validate_json(one.request.model_dump_json()) for one in asked]
    for one, request in zip(asked, moved, strict=True):
        given = {
            name: value.model_copy(update={"place": store / value.path.name})
            for name, value in request.inputs.items()
            if value.path.parent.name == "store"
        }
        run_chain([request.model_copy(update=given)], one.entry, store, say=lambda _: None, track=False)
    return weights_of(store, job)


def test_a_worker_that_is_told_to_stop_leaves_its_task_to_others(sample_csv: Path, tiny_llama: Path, store: Path) -> None:
    asked = asked_folds(tiny_entry("one", epochs=20), sample_csv, store, tiny_llama)
    bring(asked, store)
    job = job_of(asked)
    folder = keep_job(job, store)
    for end in (lambda process: process.terminate(), lambda _: stop_job(folder)):
        process = worker(folder)
        wait_until((store / PARTIAL / job.tasks[0].name / "checkpoint").exists, "a checkpoint", process)
        wait_until(lambda: statuses(folder, job, store)[0].state == "running", "the note", process)
        end(process)
        assert process.wait(60) == 0, said(folder)
        assert states(statuses(folder, job, store)) == ["queued", "queued"], "nobody died, and nothing failed"
        assert read_note(folder, job.tasks[0]) is None and not is_made(store, job.tasks[0].name)
        assert not [one for one in psutil.process_iter(["cmdline"]) if job.tasks[0].name in " ".join(one.info["cmdline"] or [])]


def test_a_worker_that_comes_to_a_job_that_was_stopped_begins_nothing(sample_csv: Path, store: Path) -> None:
    """As tasks of an array do that waited for a host."""
    job = job_of(lexical_asked(sample_csv, store, 2))
    folder = keep_job(job, store)
    stop_job(folder)
    assert ended([worker(folder)]) == [0] and said(folder) == ""
    assert states(statuses(folder, job, store)) == ["queued"]


def test_a_host_that_differs_says_so_and_does_nothing(sample_csv: Path, tmp_path: Path, store: Path) -> None:
    own = tmp_path / "own.csv"
    shutil.copy(sample_csv, own)
    job = job_of(lexical_asked(own, store, 2))
    folder = keep_job(job, store)
    own.unlink()
    assert ended([worker(folder)]) == [3] and f"does not see {own}; put it where all hosts see it" in said(folder)
    own.write_bytes(sample_csv.read_bytes() + b"\n")
    assert ended([worker(folder)]) == [3] and f"has another {own} than here; put the same file there" in said(folder)
    shutil.copy(sample_csv, own)
    text = (folder / HOST).read_text()
    (folder / HOST).write_text(text.replace('"python": "3', '"python": "2'))
    assert ended([worker(folder)]) == [3] and "Python" in said(folder)
    (folder / HOST).write_text(text.replace("{", '{"from": "a later version", ', 1))
    assert ended([worker(folder)]) == [3] and f"error: {folder / HOST}: not a host's facts" in said(folder)
    assert "Traceback" not in said(folder)
    assert states(statuses(folder, job, store)) == ["queued"]
