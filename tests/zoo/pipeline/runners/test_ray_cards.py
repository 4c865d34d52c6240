"""Trainings on hosts that lend cards: Ray's own counting of declared ones, and real trainings, which find none there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.jobs import asked_folds, bring, tiny_entry
from zoo.contracts import FetchRequest
from zoo.errors import ZooError
from zoo.experiments.jobs import run as jobs
from zoo.experiments.jobs.run import run_ahead
from zoo.experiments.jobs.states import statuses
from zoo.experiments.jobs.tasks import is_made, job_folder, job_of, jobs_in
from zoo.pipeline.runners.session import running_on
from zoo.store import artifact_name
from zoo.targets.machine import VISIBLE

pytest.importorskip("ray")

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cards(cluster: Any) -> Any:
    """Two hosts that lend a card each, in the place of those without."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)
    for _ in range(2):
        cluster.add_node(num_cpus=1, num_gpus=1)
    return cluster


@pytest.fixture
def store(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "ASK_SECONDS", 2.0)
    return own_home / "store"


def test_a_training_on_more_cards_than_any_host_has_is_refused_before_anything_begins(
    cards: Any, sample_csv: Path, tiny_llama: Path, store: Path
) -> None:
    asked = asked_folds(tiny_entry("wide", gpus=2), sample_csv, store, tiny_llama)
    with (
        running_on("ray", store, lambda _: None),
        pytest.raises(
            ZooError, match=r"train of wide takes 2 cards of one host; the cluster has .*: 1, .*: 1; set train.gpus = 1"
        ),
    ):
        run_ahead(asked, store, say=lambda _: None)
    assert not list(jobs_in(store)), "no job was begun"
    fetches = [one.request for one in asked if isinstance(one.request, FetchRequest)]
    assert fetches and not any(is_made(store, artifact_name(one)) for one in fetches), "no weights were fetched"


@contextmanager
def seen(store: Path) -> Iterator[dict[str, set[tuple[int, str]]]]:
    """Of each training that runs within the block, by its artifact: its host's process of Ray, and the cards that it sees."""
    found: dict[str, set[tuple[int, str]]] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for stage in psutil.process_iter(["cmdline"]):
                words = stage.info["cmdline"] or []
                if "zoo.stages" in words and words[-1].startswith(str(store)):
                    with suppress(psutil.Error, StopIteration, KeyError):  # it is about to end
                        host = next(one.pid for one in stage.parents() if one.name() == "raylet")
                        found.setdefault(Path(words[-1]).name, set()).add((host, stage.environ()[VISIBLE]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def test_each_training_has_cards_of_its_own_on_a_host_that_has_them(
    cards: Any, sample_csv: Path, tiny_llama: Path, store: Path
) -> None:
    """Four that take one card each, of hosts with one, one and two; then one that takes two."""
    large = cards.add_node(num_cpus=2, num_gpus=2).all_processes["raylet"][0].process.pid
    asked = asked_folds(tiny_entry("one", max_rows=64), sample_csv, store, tiny_llama, folds=4)
    job = job_of(asked)
    bring(asked, store)
    with running_on("ray", store, lambda _: None), seen(store) as found:
        run_ahead(asked, store, say=lambda _: None)
    folder = job_folder(store, job.name)
    assert {one.state for one in statuses(folder, job, store)} == {"done"}
    places = [next(iter(where)) for where in found.values()]
    assert all(len(where) == 1 for where in found.values()) and len(places) == len(set(places)) == 4, found
    on_large = sorted(card for host, card in places if host == large)
    assert on_large == ["0", "1"] and {card for host, card in places if host != large} == {"0"}, found
    wide = asked_folds(tiny_entry("wide", gpus=2), sample_csv, store, tiny_llama)[:3]
    with running_on("ray", store, lambda _: None), seen(store) as found, suppress(ZooError):  # it finds no card behind them
        run_ahead(wide, store, say=lambda _: None)
    assert {(host, tuple(sorted(card.split(",")))) for where in found.values() for host, card in where} == {
        (large, ("0", "1"))
    }, found
