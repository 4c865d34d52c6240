"""Scoring by a real Slurm array (slurmctld and slurmd of the distribution, on this host): claims, requeued tasks, one table."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.jobs import asked_folds, lexical_asked, tiny_entry
from tests.helpers.kills import kill_holder
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, Variant
from zoo.errors import ZooError
from zoo.experiments.jobs import run as jobs
from zoo.experiments.jobs.states import read_note
from zoo.experiments.jobs.tasks import job_folder, job_of
from zoo.pipeline.runner import start_stage
from zoo.pipeline.runners import slurm
from zoo.pipeline.runners.slurm import array_script, submitted
from zoo.scores.tables import read_scores
from zoo.settings import SlurmSettings
from zoo.stages.score.shared_out import check_alone
from zoo.store import PARTIAL

needs_slurm = pytest.mark.skipif(not shutil.which("slurmctld"), reason="Slurm is not installed (scripts/install_services.sh)")
CONFIG = """ClusterName=test
SlurmctldHost={host}({address})
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr={address} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm cluster of this host alone, without control groups; the folder of its configuration."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = (one.getsockname()[1], other.getsockname()[1])
    host, config = socket.gethostname().partition(".")[0], folder / "slurm.conf"
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    facts = {"host": host, "address": "127.0.0.1", "user": user, "folder": folder, "cpus": os.cpu_count()}
    config.write_text(CONFIG.format(**facts, port=ports[0], next_port=ports[1]))
    processes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(config))
        patch.setenv("PYTHONPATH", str(ROOT))  # tasks are of this checkout, whichever is installed
        for command in (["slurmctld", "-D", "-f", str(config)], ["slurmd", "-D", "-N", host, "-f", str(config)]):
            with (folder / f"{command[0]}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline and all(process.poll() is None for process in processes), [
                log.read_text()[-500:] for log in folder.glob("*.log")
            ]
            time.sleep(0.2)
        yield folder
        for process in reversed(processes):
            process.terminate()
            process.wait()


def score_request(model: Path, csv: Path) -> ScoreRequest:
    return ScoreRequest(
        entry="tiny",
        model=Input(path=model.parent, fingerprint="x"),
        battles=Input(path=csv, fingerprint="y"),
        held=Held(),
        selection=Selection(rows="all", max_rows=160),
        prompt=PromptSpec(template=TEMPLATE, max_tokens=160),
        spec=ScoreSpec(variants=(Variant(max_tokens=160),), chunk_rows=2, max_seqs=4, max_batched_tokens=512, dtype="float32"),
        target="cpu",
    )


@needs_slurm
@pytest.mark.chain
@pytest.mark.timeout(600)
def test_an_array_makes_the_table_of_this_host(
    cluster: Path, tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task is killed and another takes its chunks over; who watches is interrupted, and comes back to the same array."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[slurm]\ntasks = 2\noptions = ['--cpus-per-task=1']\n")
    monkeypatch.setenv("ZOO_SETTINGS", str(settings))
    request, here, there = score_request(tiny_llama, sample_csv), tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "request.json").write_text(request.model_dump_json())
    assert start_stage(request, here, environment={"ZOO_RUNNER": "local"}).wait() == 0
    monkeypatch.setenv("ZOO_RUNNER", "slurm")  # also what a stage may see of the environment goes by it
    watcher = start_stage(request, there)
    job = first(lambda: slurm.job_of(there / "work"))
    watcher.kill()
    watcher.wait()
    again = start_stage(request, there)
    holders = first(lambda: list((there / "work").glob("*/job.json")))
    assert first(lambda: kill_holder(holders[0].parent, random.Random(0)))
    assert again.wait() == 0, (there / "stage.log").read_text()[-2000:]
    assert first(lambda: not slurm.states(job)), "tasks that have nothing to do wait on"
    assert next_job() <= int(job) + 2, "who came back submitted a second array"
    ours, theirs = (read_scores(folder / "ab-160" / "scores.parquet") for folder in (there, here))
    pd.testing.assert_frame_equal(ours, theirs)


@needs_slurm
@pytest.mark.chain
@pytest.mark.timeout(900)
def test_trainings_by_an_array_are_done_once_and_go_on_after_a_kill(
    cluster: Path, tiny_llama: Path, sample_csv: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = tmp_path / "settings.toml", own_home / "store"
    settings.write_text("[slurm]\ntasks = 8\noptions = ['--cpus-per-task=1']\n")
    for name, value in (("ZOO_SETTINGS", str(settings)), ("ZOO_RUNNER", "slurm")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jobs, "LAPSE_SECONDS", 8.0)
    asked = asked_folds(tiny_entry("one", epochs=8), sample_csv, store, tiny_llama)
    job, said = job_of(asked), list[str]()
    folder = job_folder(store, job.name)
    assert "--array=0-1\n" in jobs.script_ahead(asked, store), "no more tasks than there are chains"

    def kill_one() -> int:
        """The worker that trains the first fold, once it has left a checkpoint."""
        first(lambda: all((store / PARTIAL / task.name / "checkpoint").exists() for task in job.tasks))
        note = first(lambda: read_note(folder, job.tasks[0]))
        pid = int(note.holder.split("-")[-2])
        os.kill(pid, signal.SIGKILL)
        return pid

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_one)
        jobs.run_ahead(asked, store, say=said.append)
        assert killed.result() > 0
    assert first(lambda: not slurm.states(slurm.job_of(folder) or "")), "tasks that have nothing to do wait on"
    notes = [read_note(folder, task) for task in job.tasks]
    assert [note.state for note in notes if note] == ["done", "done"] and sum(note.deaths for note in notes if note) == 1
    assert "going on from step" in (store / job.tasks[0].name / "stage.log").read_text()
    done = [
        line for log in (folder / slurm.LOGS).glob("*.log") for line in log.read_text().splitlines() if line.endswith(": done")
    ]
    assert len(done) == 2, done


@needs_slurm
@pytest.mark.chain
@pytest.mark.parametrize("hold", [(), ("--hold",)], ids=["at work", "waiting"])
def test_slurm_itself_says_whose_script_an_array_is(cluster: Path, tmp_path: Path, hold: tuple[str, ...]) -> None:
    """Of an array whose number was never noted: its path is long, with a space, and its tasks are one line or several."""
    folder = tmp_path / ("a folder of 100%-" + "x" * 120) / "work"
    other = tmp_path / "other"
    settings = SlurmSettings(tasks=2, options=("--cpus-per-task=1", *hold))
    command = ["bash", "-c", "sleep 600"]
    jobs = [submitted(array_script("sleeps", command, place, settings, {}), place) for place in (folder, other)]
    first(lambda: {"PENDING"} == set(slurm.states(jobs[0])) if hold else "RUNNING" in slurm.states(jobs[0]))
    (folder / slurm.JOB).unlink()
    assert slurm.at_work(folder) == jobs[0] == slurm.job_of(folder)
    for job in jobs:
        slurm.end(job)
    assert first(lambda: not slurm.states(jobs[0]))
    (folder / slurm.JOB).unlink()
    assert first(lambda: slurm.at_work(folder) is None)


def next_job() -> int:
    """The id that Slurm gives next: each task of an array has taken one."""
    told = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in told.splitlines() if line.startswith("NEXT_JOB_ID")]
    return int(line.split("=")[1])


def first(look):  # type: ignore[no-untyped-def]
    """What there is to be seen, once there is something."""
    deadline = time.monotonic() + 240
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_the_script_of_an_array_says_all_that_a_task_needs(tmp_path: Path) -> None:
    settings = SlurmSettings(tasks=8, options=("--partition=gpu", "--gres=gpu:1"))
    text = array_script("score-1", ["/a python", "-m", "x"], tmp_path, settings, {"ZOO_HOME": "/my home"})
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash" and "#SBATCH --array=0-7" in lines and "#SBATCH --requeue" in lines
    assert "#SBATCH --gres=gpu:1" in lines and "export ZOO_HOME='/my home'" in lines
    assert f'#SBATCH --output="{tmp_path}/slurm-logs/%a.log"' in lines
    assert '--output="/a b/100%%/' in array_script("x", [], Path("/a b/100%"), settings, {}), "a folder may have any name"
    assert lines[-1] == "exec '/a python' -m x \"$SLURM_ARRAY_TASK_ID\" 8"
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_a_host_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ZooError, match=r"no sbatch on this host; .*--dry-run"):
        submitted("x", tmp_path)


def test_another_runner_keeps_off_a_run_that_an_array_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue's answers are stand-ins: a job that waits, none, and a controller that is away."""
    (tmp_path / "work").mkdir()
    check_alone(tmp_path)  # none was ever submitted: Slurm is not asked
    (tmp_path / "work" / slurm.JOB).write_text('{"job": "71"}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for answer, told in ANSWERS.items():
        write_squeue(tmp_path, answer)
        with pytest.raises(ZooError, match=told) if told else nullcontext():
            check_alone(tmp_path)


SILENT = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
ANSWERS = {
    "echo PENDING": r"Slurm job 71 is at work.*scancel 71",
    "": "",
    "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1": "",
    SILENT: r"Slurm job 71 is at work here is not known \(squeue: .*Unable to contact.*slurm.json and array.sh if it is over",
}


def write_squeue(folder: Path, answer: str) -> None:
    tool = folder / "squeue"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)


def test_an_array_whose_number_was_never_noted_is_found_by_its_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch that answers too late, or a submitter that is killed meanwhile: squeue's and sbatch's answers are stand-ins."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'Socket timed out on send/recv operation' >&2; exit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    work = tmp_path / "work"
    with pytest.raises(ZooError, match="Socket timed out"):
        submitted("script", work)
    write_squeue(tmp_path, SILENT)
    with pytest.raises(ZooError, match=r"an array that was being submitted is at work here is not known.*remove .*array.sh"):
        slurm.at_work(work)
    write_squeue(tmp_path, f"echo '70|/elsewhere/array.sh'; echo '71|{work / slurm.SCRIPT}'")
    assert slurm.at_work(work) == "71" == slurm.job_of(work)
    (work / slurm.JOB).write_text("{")
    with pytest.raises(ZooError, match=r"slurm.json: not a job's number"):
        slurm.at_work(work)


def test_who_watches_an_array_takes_silence_for_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    write_squeue(tmp_path, SILENT)
    assert not slurm.is_over("71", said.append) and "Unable to contact" in said[0]
    write_squeue(tmp_path, "")
    assert slurm.is_over("71", said.append) and len(said) == 1


def test_a_job_whose_array_may_be_at_work_is_not_submitted_again(
    sample_csv: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = own_home / "store"
    monkeypatch.setenv("ZOO_RUNNER", "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    asked = lexical_asked(sample_csv, store, 2)
    folder = job_folder(store, job_of(asked).name)
    folder.mkdir(parents=True)
    (folder / slurm.JOB).write_text('{"job": "71"}')
    write_squeue(tmp_path, SILENT)
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\ntouch {tmp_path}/submitted\necho 72\n")
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(ZooError, match="Slurm job 71 is at work here is not known"):
        jobs.run_ahead(asked, store, say=lambda _: None)
    assert not (tmp_path / "submitted").exists() and slurm.job_of(folder) == "71"
