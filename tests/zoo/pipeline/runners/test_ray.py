"""Scoring on a real Ray cluster of two hosts, engines, hosts and the driver killed: every row is answered exactly once."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.kills import kill_engine, kill_holder
from tests.helpers.paths import HELPERS
from zoo.contracts import Variant
from zoo.stages.score import engine_handle
from zoo.stages.score.chunks import Answer, Chunk
from zoo.stages.score.engines import Crew, Job
from zoo.stages.score.token_file import TOKEN, Encoding
from zoo.stages.score.work import Listener

pytest.importorskip("ray")

from zoo.pipeline.runners.ray import RayFleet, connected

pytestmark = [pytest.mark.chain, pytest.mark.timeout(400)]
CHUNKS = 120


def chunks_of(count: int) -> list[Chunk]:
    lengths = np.full(count, 5)
    encoding = Encoding(Variant(max_tokens=9), np.arange(count) * 5, lengths, 0 * lengths)
    return [Chunk((encoding,), i, np.array([i])) for i in range(count)]


def job_of(folder: Path, copies: int) -> Job:
    job = Job(arguments={}, label_ids=(1, 2, 3), folder=folder / "work", places=({"PACE": "0.1"},) * copies)
    job.folder.mkdir(parents=True)
    job.tokens.write_bytes(np.arange(5 * CHUNKS, dtype=TOKEN).tobytes())
    return job


def answers(into: dict[int, list[list[float]]], number: int, answer: Answer, _: object) -> None:
    assert number not in into, "a chunk was answered twice"
    into[number] = answer.logits.tolist()


def test_every_chunk_is_answered_once_whatever_dies(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines, their actors and a host; a host that comes takes its part. The answers are those of this host alone."""
    monkeypatch.setattr(engine_handle, "COMMAND", (sys.executable, str(HELPERS / "stand_in_engine.py")))
    here: dict[int, list[list[float]]] = {}
    there: dict[int, list[list[float]]] = {}
    notes: list[str] = []
    draw, folder = random.Random(7), tmp_path / "there" / "work"
    deeds = {
        10: lambda: kill_engine(folder, draw),
        30: lambda: kill_holder(folder, draw),
        50: lambda: cluster.remove_node(min(cluster.worker_nodes, key=id), allow_graceful=False),
        60: lambda: cluster.add_node(num_cpus=1),
    }

    def take(number: int, answer: Answer, memory: object) -> None:
        answers(there, number, answer, memory)
        if deed := deeds.get(len(there)):
            assert deed() is not False

    with Crew(job_of(tmp_path / "here", 1)) as crew:
        crew.score(chunks_of(CHUNKS), Listener(take=partial(answers, here)))
    with connected():
        fleet = RayFleet(0, "cpu", tmp_path)
        assert fleet.copies == 2 and not fleet.on_gpu
        with Crew(job_of(tmp_path / "there", 2), fleet=fleet) as crew:
            crew.score(chunks_of(CHUNKS), Listener(take=take, note=notes.append))
    assert there == here, "none lost, none twice, and the same numbers"
    told = "\n".join(notes)
    assert told.count("ended by SIGKILL; started again") == 2, told
    assert "has gone; its work goes to others" in told and "which has come" in told, told
