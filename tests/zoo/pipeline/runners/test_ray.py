"""Scoring on a real Ray cluster of two hosts, engines, hosts and the driver killed: every row is answered exactly once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.paths import HELPERS
from zoo.contracts import Variant
from zoo.stages.score import engine_handle
from zoo.stages.score.chunks import Chunk
from zoo.stages.score.engines import Crew, Job
from zoo.stages.score.token_file import TOKEN, Encoding
from zoo.stages.score.work import Listener

ray = pytest.importorskip("ray")

from zoo.pipeline.runners.ray import RayFleet, connected  # noqa: E402

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]
STAND_IN = (sys.executable, str(HELPERS / "stand_in_engine.py"))


def chunks_of(count: int) -> list[Chunk]:
    lengths = np.full(count, 5)
    encoding = Encoding(Variant(max_tokens=9), np.arange(count) * 5, lengths, 0 * lengths)
    return [Chunk((encoding,), i, np.array([i])) for i in range(count)]


def job_of(folder: Path, copies: int, count: int, **environment: str) -> Job:
    job = Job(arguments={}, label_ids=(1, 2, 3), folder=folder / "work", places=(environment,) * copies)
    job.folder.mkdir()
    job.tokens.write_bytes(np.arange(5 * count, dtype=TOKEN).tobytes())
    return job


def test_engines_run_on_every_host_of_the_cluster(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_handle, "COMMAND", STAND_IN)
    done: list[int] = []
    ready: list[int] = []
    with connected():
        fleet = RayFleet(0, "cpu", tmp_path)
        assert fleet.copies == 2 and not fleet.on_gpu
        with Crew(job_of(tmp_path, 2, 40), fleet=fleet) as crew:
            crew.score(
                chunks_of(40),
                Listener(
                    take=lambda number, answer, memory: done.append(number),
                    ready=lambda number, seconds, memory: ready.append(number),
                ),
            )
    assert sorted(done) == list(range(40)) and ready
