"""Jobs of tiny entries, and what their workers left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.tiny_models import TINY_ENTRY
from zoo.contracts import Entry, Held, Selection
from zoo.experiments.jobs.run import asked_of
from zoo.experiments.jobs.tasks import LOGS, Asked, Job, is_task
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input
from zoo.pipeline.folds import fold_chains
from zoo.store import read_manifest
from zoo.tracking.client.connection import connect


def tiny_entry(name: str, **train: object) -> Entry:
    """The tiny Llama, trained on few rows in steps that leave a checkpoint each."""
    spec = {**TINY_ENTRY["train"], "max_rows": 32, "batch_rows": 8, "evals_per_epoch": 4, **train}  # type: ignore[dict-item]
    return Entry.model_validate({**TINY_ENTRY, "name": name, "train": spec})


def asked_folds(entry: Entry, csv: Path, store: Path, model: Path, *, folds: int = 2, last: str = "train") -> list[Asked]:
    """An entry's chains of every fold, up to the last stage that is wanted."""
    held, selection = Held(n_folds=folds), Selection()
    chains = fold_chains(entry, battles_input(csv), "cpu", store, held=held, selection=selection, source=str(model))
    ends = [next(number for number, request in enumerate(chain) if request.stage == last) + 1 for chain in chains]
    return asked_of(entry.name, entry, [chain[:end] for chain, end in zip(chains, ends, strict=True)])


def lexical_asked(csv: Path, store: Path, *folds: int) -> list[Asked]:
    """Lexical trainings, which take seconds; an entry for each number of folds."""
    found = []
    for count in folds:
        entry = Entry.model_validate({"name": f"words-{count}", "kind": "lexical", "lexical": {"folds": count}})
        held, selection = Held(n_folds=count), Selection()
        chains = fold_chains(entry, battles_input(csv), "cpu", store, held=held, selection=selection)
        found += asked_of(entry.name, entry, [chain[:1] for chain in chains])
    return found


def bring(asked: Sequence[Asked], store: Path) -> None:
    """What the command itself gets before workers begin."""
    for one in asked:
        if not is_task(one.request):
            run_chain([one.request], one.entry, store, say=lambda _: None, track=False)


def worker(folder: Path, *, log: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """A worker of this host, whose words go to a log as those of a cluster do."""
    (folder / LOGS).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "zoo.experiments.jobs.worker", str(folder), "4"]
    with (log or folder / LOGS / "here.log").open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})


def times_done(folder: Path, job: Job) -> Counter[str]:
    """How often workers said of each task that they did it."""
    lines = [line.strip() for log in (folder / LOGS).glob("*.log") for line in log.read_text().splitlines()]
    names = [task.name for task in job.tasks]
    return Counter(name for line in lines for name in names if line.endswith(f"{name}: done"))


def weights_of(store: Path, job: Job) -> dict[str, dict[str, str]]:
    """Digests of the weights that each task left: what is told of speed beside them is of each run."""
    found = {}
    for task in job.tasks:
        files = read_manifest(store / task.name).files
        found[task.name] = {
            name: file.sha256 for name, file in files.items() if name.endswith((".safetensors", ".npz", ".joblib"))
        }
    return found


def runs_logged(job: Job) -> Counter[tuple[str, str]]:
    """How many runs the tracking store of this home has of each task, by the task's name and how they ended."""
    client = connect()
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = [
        (run.data.tags.get("zoo.fingerprint"), run.info.status) for run in client.search_runs(experiments, max_results=1000)
    ]
    names = {task.name.rpartition("-")[2]: task.name for task in job.tasks}
    return Counter((names[fingerprint], status) for fingerprint, status in found if fingerprint in names)


def once_each(job: Job) -> dict[tuple[str, str], int]:
    """What `runs_logged` is of a job that is done: a run a stage, whoever died."""
    return {(task.name, "FINISHED"): 1 for task in job.tasks}
