"""The slurm runner: an array of tasks of one job, and how it is submitted and followed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
ASKED = "--runner slurm"  # what messages begin with: who asked for it
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
        raise ZooError(f"{ASKED}: no sbatch on this host; run on one of the cluster's, or see the script with --dry-run")
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    (folder / JOB).unlink(missing_ok=True)
    write_atomic(folder / SCRIPT, script)  # before sbatch: an array whose number was never noted is found by it
    job = _ask("sbatch", "--parsable", str(folder / SCRIPT)).strip().partition(";")[0]
    write_atomic(folder / JOB, json.dumps({"job": job}))
    return job


def job_of(folder: Path) -> str | None:
    """The job that was submitted for a folder, over or not.

    ZooError where its file cannot be read: that is no sign that there is none.
    """
    try:
        return str(json.loads((folder / JOB).read_text())["job"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise ZooError(f"{folder / JOB}: not a job's number ({why}); remove it where `squeue --me` shows none") from error


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
    """The job that is at work on a folder, or waits to be; None where none is.

    ZooError where Slurm does not say: a second array beside a first would do its work again.
    """
    job = job_of(folder)
    if job is None and not (folder / SCRIPT).exists():
        return None
    try:
        return (job if states(job) else None) if job else _unnoted(folder)
    except ZooError as error:
        which = f"Slurm job {job}" if job else "an array that was being submitted"
        left = f"{folder / JOB} and {SCRIPT}" if job else str(folder / SCRIPT)  # by either it is looked for
        mend = f"give the command again where Slurm answers, or remove {left} if it is over"
        told = str(error).removeprefix(f"{ASKED}: ")
        raise ZooError(f"whether {which} is at work here is not known ({told}); {mend}", exit_code=error.exit_code) from error


def _unnoted(folder: Path) -> str | None:
    """The job of a folder's script that Slurm took, and whose submitter ended, or waited in vain, before it had the number."""
    lines = _ask("squeue", "--me", "--noheader", "--format=%F|%o").splitlines()
    own = [job for job, _, script in (line.partition("|") for line in lines) if script.strip() == str(folder / SCRIPT)]
    if own:
        write_atomic(folder / JOB, json.dumps({"job": own[0]}))
    return own[0] if own else None


def is_over(job: str, say: Callable[[str], None]) -> bool:
    """Whether no task of a job is left, for who watches one.

    Slurm that does not answer is told, and is no sign of an end: its tasks work on.
    """
    try:
        return not states(job)
    except ZooError as error:
        say(f"{error}; what it said last still holds")
        return False


def end(job: str, *, waiting: bool = False) -> None:
    """End what is left of a job, or only those of its tasks that wait for a host.

    These have nothing to do once all is done.
    """
    with suppress(ZooError):  # it has ended by itself, or Slurm does not answer: its tasks find nothing to do
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
        raise ZooError(f"{ASKED}: {command[0]}: {error}; see whether slurmctld answers: scontrol ping") from error
    if done.returncode:
        raise ZooError(f"{ASKED}: {command[0]}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout
