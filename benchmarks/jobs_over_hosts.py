"""Trainings of several entries and folds: over the hosts of a Ray cluster, against one after the other on this host.

    python benchmarks/jobs_over_hosts.py --entries 4 --folds 5 --hosts 2

A tiny Llama (random weights) on processors. The hosts are processes of this machine with a processor each, so that two cores do
what two hosts would: where something else uses them too, the times say little. Each run has a home of its own; the start of
workers, and logging to MLflow, belong to what is measured. Prints JSON: a line a run, and whether the weights are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.jobs import asked_folds, bring, tiny_entry, weights_of
from tests.helpers.tiny_models import write_tiny_llama
from zoo.data.sample import write_sample
from zoo.experiments.jobs.run import run_ahead
from zoo.experiments.jobs.states import read_note
from zoo.experiments.jobs.tasks import Asked, Job, is_task, job_folder, job_of
from zoo.experiments.run import run_chain
from zoo.pipeline.runners.ray_address import CLUSTERS
from zoo.pipeline.runners.session import running_on
from zoo.targets import machine_fingerprint


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def cluster(hosts: int) -> Iterator[None]:
    """A head without processors and hosts of one each; `RAY_ADDRESS` is its address."""
    os.environ.setdefault(CLUSTERS, "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(hosts):
        made.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = made.address
    try:
        yield
    finally:
        made.shutdown()


def asked_in(args: argparse.Namespace, folder: Path, home: Path) -> list[Asked]:
    """All chains of all entries, whose rates of learning differ."""
    os.environ["ZOO_HOME"] = str(home)
    entries = [tiny_entry(f"tiny-{n}", learning_rate=1e-3 * (n + 1), max_rows=args.rows) for n in range(args.entries)]
    places = {"store": home / "store", "model": folder / "model"}
    found = [asked_folds(entry, folder / "battles.csv", **places, folds=args.folds, last=args.last) for entry in entries]
    return [asked for one in found for asked in one]


def by_ray(args: argparse.Namespace, folder: Path) -> tuple[Job, Path, float, list[str]]:
    """The seconds of the job, and the hosts' processes that did its tasks."""
    home = folder / "ray"
    asked = asked_in(args, folder, home)
    store, job = home / "store", job_of(asked)
    bring(asked, store)
    with cluster(args.hosts), running_on("ray", store, say):
        begun = time.monotonic()
        run_ahead(asked, store, say=say)
        seconds = time.monotonic() - begun
    notes = [read_note(job_folder(store, job.name), task) for task in job.tasks]
    return job, store, seconds, sorted({note.holder for note in notes if note})


def by_turns(args: argparse.Namespace, folder: Path) -> tuple[Job, Path, float]:
    """The seconds of the same, one after the other."""
    home = folder / "local"
    asked = asked_in(args, folder, home)
    store = home / "store"
    bring(asked, store)
    begun = time.monotonic()
    for one in asked:
        if is_task(one.request):
            run_chain([one.request], one.entry, store, say=say)
    return job_of(asked), store, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64, help="battles that each training learns from")
    parser.add_argument("--last", default="train", choices=["train", "merge", "quantize"])
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of a host's one processor
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_llama(folder / "model")
        write_sample(folder / "battles.csv", 240, 7)
        facts = {"machine": machine_fingerprint(), "entries": args.entries, "folds": args.folds, "last": args.last}
        job, store, seconds, workers = by_ray(args, folder)
        told = {"runner": "ray", "hosts": args.hosts, "workers": len(workers), "tasks": len(job.tasks)}
        print(json.dumps({**told, "wall_seconds": round(seconds, 1), **facts}), flush=True)
        same_job, here, local = by_turns(args, folder)
        print(
            json.dumps({"runner": "local", "tasks": len(same_job.tasks), "wall_seconds": round(local, 1), **facts}), flush=True
        )
        same = {"same_job": same_job.name == job.name, "same_weights": weights_of(store, job) == weights_of(here, same_job)}
        print(json.dumps({**same, "times_as_fast": round(local / seconds, 2)}))


if __name__ == "__main__":
    main()
