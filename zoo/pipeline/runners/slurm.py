"""The slurm runner: an array of tasks of one job, and how it is submitted and followed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from zoo.errors import ZooError
from zoo.pipeline.runners.chosen import CHOSEN
from zoo.pipeline.runners.environment import NOT_OF_STAGES, RUNNER, stage_environment
from zoo.settings import SlurmSettings
from zoo.store import write_atomic
from zoo.targets import SHARE

SCRIPT, JOB, LOGS = "array.sh", "slurm.json", "slurm-logs"
ASK_SECONDS = 60.0
CARRIED = ("ZOO_", "VLLM_", "OMP_", "HF_HUB_OFFLINE", "PYTHONSAFEPATH", "TOKENIZERS_PARALLELISM", "DO_NOT_TRACK")
NOT_CARRIED = (CHOSEN, RUNNER, SHARE, *NOT_OF_STAGES)


def task_environment(stage: str) -> dict[str, str]:
    """What an array's script sets for tasks that do a stage's work.

    sbatch hands on the rest of the environment, unless it is told otherwise.
    """
    return {
        name: value for name, value in stage_environment(stage).items() if name.startswith(CARRIED) and name not in NOT_CARRIED
    }


def array_script(
    name: str, command: Sequence[str], folder: Path, settings: SlurmSettings, environment: Mapping[str, str]
) -> str:
    """The text of an array's script.

    Each task runs `command` with its number and the number of tasks behind it.
    A task that is requeued, or that another host takes over, finds in the folder what is done. `environment`: set in each.
    """
    options = [
        f"--job-name={name}",
        f"--array=0-{settings.tasks - 1}",
        "--requeue",
        "--open-mode=append",
        f'--output="{str(folder / LOGS).replace("%", "%%")}/%a.log"',
        *settings.options,
    ]
    exports = [f"export {key}={shlex.quote(value)}" for key, value in sorted(environment.items())]
    words = " ".join(shlex.quote(word) for word in command)
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in options),
            "set -eu",
            *exports,
            f'exec {words} "$SLURM_ARRAY_TASK_ID" {settings.tasks}',
            "",
        ]
    )


def submitted(script: str, folder: Path) -> str:
    """Write the script into the folder and submit it; the job's id.

    ZooError where there is no sbatch, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise ZooError("--runner slurm: no sbatch on this host; run on one of the cluster's, or see the script with --dry-run")
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SCRIPT, script)
    job = _ask("sbatch", "--parsable", str(folder / SCRIPT)).strip().partition(";")[0]
    write_atomic(folder / JOB, json.dumps({"job": job}))
    return job


def job_of(folder: Path) -> str | None:
    """The job that was submitted for a folder, over or not."""
    try:
        return str(json.loads((folder / JOB).read_text())["job"])
    except (OSError, ValueError, KeyError):
        return None


def states(job: str) -> Counter[str]:
    """Tasks of a job by their state, as squeue names them.

    None once it is over.
    """
    try:
        lines = _ask("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%T").split()
    except ZooError as error:
        if "Invalid job id" in str(error):
            return Counter()
        raise
    return Counter(line for line in lines if line != "COMPLETING")


def at_work(folder: Path) -> str | None:
    """The job that is at work on a folder, or waits to be.

    None where none is, or this host has no Slurm that answers.
    """
    with suppress(ZooError):
        job = job_of(folder)
        return job if job and states(job) else None
    return None


def end(job: str, *, waiting: bool = False) -> None:
    """End what is left of a job, or only those of its tasks that wait for a host.

    These have nothing to do once all is done.
    """
    with suppress(ZooError):  # it has ended by itself
        _ask("scancel", *(["--state=PENDING"] if waiting else []), job)


def log_end(folder: Path) -> str:
    """The last line of the log that was written last; empty where there is none."""
    logs = sorted((folder / LOGS).glob("*.log"), key=lambda path: path.stat().st_mtime)
    for log in reversed(logs):
        if lines := log.read_text(errors="replace").strip().splitlines():
            return f"{log}: {lines[-1][:300]}"
    return ""


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ZooError(f"--runner slurm: {command[0]}: {error}; see whether slurmctld answers: scontrol ping") from error
    if done.returncode:
        raise ZooError(f"--runner slurm: {command[0]}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout
