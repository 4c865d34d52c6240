"""Trainings on a real Ray cluster of two hosts: artifacts as of this host alone, whatever dies; a command comes back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.jobs import asked_folds, lexical_asked, once_each, runs_logged, times_done, tiny_entry, weights_of
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_until
from zoo.contracts import Input
from zoo.entries.toml import contract_toml
from zoo.errors import ZooError
from zoo.experiments.jobs import run as jobs
from zoo.experiments.jobs.run import run_ahead
from zoo.experiments.jobs.states import read_note, statuses
from zoo.experiments.jobs.tasks import Asked, Job, job_folder, job_of, jobs_in, read_job
from zoo.experiments.run import run_chain
from zoo.pipeline.runners.session import running_on
from zoo.store import PARTIAL

pytest.importorskip("ray")

from zoo.pipeline.runners.ray import Node
from zoo.pipeline.runners.ray_address import CLUSTERS
from zoo.pipeline.runners.ray_workers import places, workers_of

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]
LAPSE = "8"


@pytest.fixture
def store(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "LAPSE_SECONDS", float(LAPSE))
    monkeypatch.setattr(jobs, "ASK_SECONDS", 2.0)
    return own_home / "store"


def test_what_two_hosts_make_is_what_one_makes_and_a_failure_is_reported(
    cluster: Any, sample_csv: Path, tiny_llama: Path, tmp_path: Path, store: Path
) -> None:
    said: list[str] = []
    asked = asked_folds(tiny_entry("one"), sample_csv, store, tiny_llama, last="merge")
    job = job_of(asked)
    with running_on("ray", store, said.append):
        run_ahead(asked, store, say=said.append)
        folder = job_folder(store, job.name)
        wait_until(lambda: not workers_of(job.name), "the end of the workers, which log what they made")
        assert {one.state for one in statuses(folder, job, store)} == {"done"}
        assert times_done(folder, job) == {task.name: 1 for task in job.tasks}
        run_ahead(asked, store, say=said.append)  # nothing is left
        broken = asked[1].request.model_copy(update={"base": Input(path=tmp_path, fingerprint="e" * 16)})
        lost, words = Asked("lost", 0, asked[1].entry, broken), lexical_asked(sample_csv, store, 2)
        with pytest.raises(ZooError, match=rf"train-\w+ failed on .*see `zoo jobs {job_of([lost, *words]).name}`"):
            run_ahead([lost, *words], store, say=said.append)
        assert (store / job_of(words).tasks[0].name).exists(), "what does not need it is done"
    assert sum("fold 1: train done" in line for line in said) == 1, said
    here = tmp_path / "here" / "store"
    own = asked_folds(tiny_entry("one"), sample_csv, here, tiny_llama, last="merge")
    for one in own:
        run_chain([one.request], one.entry, here, say=lambda _: None, track=False)
    assert job_of(own).name == job.name, "the same artifacts"
    assert weights_of(store, job) == weights_of(here, job)


def command(tmp_path: Path, csv: Path, model: Path) -> subprocess.Popen[bytes]:
    """`zoo train` of two folds by ray, as from a terminal."""
    environment = {
        **os.environ,
        "ZOO_ENTRIES": str(tmp_path / "entries"),
        "PYTHONPATH": str(ROOT),
        CLUSTERS: "0",
    }
    program = (
        f"from zoo.experiments.jobs import run\nrun.LAPSE_SECONDS, run.ASK_SECONDS = {LAPSE}, 2\n"
        "from zoo.cli.main import main\nmain()"
    )
    words = ["train", "slow", "--data", str(csv), "--folds", "2", "--source", str(model), "--runner", "ray"]
    with (tmp_path / "command.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def workers_here(folder: Path) -> list[psutil.Process]:
    return _with_words("zoo.experiments.jobs.worker", str(folder))


def stages_here(store: Path) -> list[psutil.Process]:
    return [one for one in _with_words("zoo.stages", "train") if str(store) in " ".join(one.cmdline())]


def _with_words(*words: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if set(words) <= set(one.info["cmdline"] or [])]


def test_a_command_that_is_interrupted_leaves_its_workers_and_comes_back(
    cluster: Any, sample_csv: Path, tiny_llama: Path, tmp_path: Path, store: Path
) -> None:
    """Then a worker, a host and the command are killed: every training is done once, from where it had come to."""
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries" / "slow.toml").write_text(contract_toml(tiny_entry("slow", epochs=60, evals_per_epoch=1)))
    log, draw = tmp_path / "command.log", random.Random(5)
    process = command(tmp_path, sample_csv, tiny_llama)
    try:
        wait_until(lambda: list(jobs_in(store)), "a job", process)
        (folder,) = jobs_in(store)
        job = read_job(folder)
        checkpoint_of_each(store, job, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
        assert "same command comes back to it" in log.read_text()
        assert len(workers_here(folder)) == 2, "they work on"
        process = command(tmp_path, sample_csv, tiny_llama)
        wait_until(lambda: log.read_text().count("Ctrl-C leaves") == 2, "the command again", process)
        draw.choice(workers_here(folder)).kill()
        wait_until(lambda: len(workers_here(folder)) == 2, "the worker in its place", process)
        process.kill()
        process.wait()
        cluster.remove_node(draw.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
        process = command(tmp_path, sample_csv, tiny_llama)
        cluster.add_node(num_cpus=1)
        assert process.wait(600) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
    wait_until(lambda: not workers_here(folder), "the end of the workers, which log what they made")
    assert {one.state for one in statuses(folder, job, store)} == {"done"}
    assert times_done(folder, job) == {task.name: 1 for task in job.tasks}
    assert runs_logged(job) == once_each(job)
    assert any("going on from step" in (store / task.name / "stage.log").read_text() for task in job.tasks)


def test_ctrl_c_on_a_cluster_of_the_command_s_own_leaves_its_tasks_to_the_next(
    sample_csv: Path, tiny_llama: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody died: else the fifth Ctrl-C failed a training, and a command waited for the lease of the one before."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries" / "slow.toml").write_text(contract_toml(tiny_entry("slow", epochs=60, evals_per_epoch=1)))
    process = command(tmp_path, sample_csv, tiny_llama)
    try:
        wait_until(lambda: list(jobs_in(store)), "a job", process)
        (folder,) = jobs_in(store)
        job = read_job(folder)
        wait_until((store / PARTIAL / job.tasks[0].name / "checkpoint").exists, "a checkpoint", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, (tmp_path / "command.log").read_text()
    finally:
        process.kill()
    assert not workers_here(folder) and not stages_here(store)
    assert [one.state for one in statuses(folder, job, store)] == ["queued"] * 2
    assert not any(read_note(folder, task) for task in job.tasks)


def checkpoint_of_each(store: Path, job: Job, process: subprocess.Popen[bytes]) -> None:
    for task in job.tasks:
        wait_until((store / PARTIAL / task.name / "checkpoint").exists, f"a checkpoint of {task.name}", process)


def test_hosts_get_as_many_workers_as_they_have_cards_and_there_is_work() -> None:
    two, four, none = (Node(name, name, gpus, 8) for name, gpus in (("a", 2), ("b", 4), ("c", 0)))
    assert Counter(node.id for _, node, _ in places("j", [two, four, none], {1: 9})) == {"a": 2, "b": 4}
    found = places("j", [two, four], {2: 2, 1: 1})
    assert [(node.id, gpus) for _, node, gpus in found] == [("b", 2), ("a", 2), ("b", 1)]
    assert [node.id for _, node, _ in places("j", [none, none], {1: 1})] == ["c"], "of processors one a host"
    assert len({name for name, _, _ in places("j", [two, four], {1: 9})}) == 6
