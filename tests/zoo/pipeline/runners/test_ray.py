"""Scoring on a real Ray cluster of two hosts, engines, hosts and the driver killed: every row is answered exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.kills import kill_engine, kill_holder
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, Variant
from zoo.pipeline.runner import start_stage
from zoo.scores.tables import read_scores
from zoo.stages.score import engine_handle
from zoo.stages.score.chunks import Answer, Chunk
from zoo.stages.score.engines import Crew, Job
from zoo.stages.score.token_file import TOKEN, Encoding
from zoo.stages.score.work import Listener

pytest.importorskip("ray")

from zoo.pipeline.runners.ray import connected
from zoo.pipeline.runners.ray_address import CLUSTERS
from zoo.pipeline.runners.ray_fleet import RayFleet

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
        if len(there) > max(deeds) and not any("which has come" in note for note in notes):
            time.sleep(1.5)  # some work is to be left when it has come, however slow the machine

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


def score_request(model: Path, csv: Path) -> ScoreRequest:
    variants = (Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=160))
    return ScoreRequest(
        entry="tiny",
        model=Input(path=model.parent, fingerprint="x"),
        battles=Input(path=csv, fingerprint="y"),
        held=Held(),
        selection=Selection(rows="all"),
        prompt=PromptSpec(template=TEMPLATE, max_tokens=160),
        spec=ScoreSpec(variants=variants, chunk_rows=2, max_seqs=4, max_batched_tokens=512, dtype="float32"),
        target="cpu",
    )


def chunk_files(out: Path) -> int:
    return len(list(out.glob("*/chunks/*.parquet")))


def start(folder: Path, runner: str, *, real: bool) -> subprocess.Popen[bytes]:
    """The score stage in a process of its own, as a command starts it; with stand-ins for engines where they are not `real`."""
    environment = {"ZOO_RUNNER": runner, "PACE": "0.05", **{name: os.environ[name] for name in ("RAY_ADDRESS", CLUSTERS)}}
    if real:
        request = ScoreRequest.model_validate_json((folder / "request.json").read_text())
        return start_stage(request, folder, environment=environment)
    command = [sys.executable, "-m", "tests.helpers.stand_in_stage", str(folder / "request.json"), str(folder)]
    with (folder / "stage.log").open("ab") as log:
        return subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT, stdout=log, stderr=log)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "real"), [(20, False), (3, True)], ids=["stand-in engines", "tiny engines"])
def test_rows_are_neither_lost_nor_doubled_by_kills(
    cluster: Any, tiny_llama: Path, sample_csv: Path, tmp_path: Path, kills: int, real: bool
) -> None:
    """The whole stage; the driver is killed, too, and the same command goes on. Who dies is drawn beforehand."""
    request, draw, out = score_request(tiny_llama, sample_csv), random.Random(11), tmp_path / "there"
    for folder in (tmp_path / "here", out):
        folder.mkdir()
        (folder / "request.json").write_text(request.model_dump_json())
    assert start(tmp_path / "here", "local", real=real).wait() == 0
    total, work = chunk_files(tmp_path / "here"), out / "work"
    deeds = ["driver", "host", *draw.choices(("engine", "engine", "actor", "host", "driver"), k=kills - 2)]
    killed: Counter[str] = Counter()
    driver = start(out, "ray", real=real)
    try:
        while driver.poll() is None:
            count = killed.total()
            if count < kills and chunk_files(out) >= count * total // (kills + 1):
                what = deeds[count]
                if what == "host":
                    cluster.remove_node(draw.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
                    cluster.add_node(num_cpus=1)
                elif what == "driver" and chunk_files(out):
                    driver.kill()
                    driver.wait()
                    driver = start(out, "ray", real=real)
                elif what == "driver" or not (kill_engine if what == "engine" else kill_holder)(work, draw):
                    what = ""  # none is up yet: the same again
                killed += Counter([what] if what else [])
            time.sleep(0.05)
    finally:
        driver.kill()
    print(f"killed: {dict(killed)}; {total} chunk files")
    assert driver.returncode == 0, (out / "stage.log").read_text()[-3000:]
    assert killed.total() == kills and killed["driver"] and killed["host"], killed
    for variant in request.spec.variants:
        ours, theirs = (read_scores(folder / variant.slug / "scores.parquet") for folder in (out, tmp_path / "here"))
        assert ours["id"].is_unique
        pd.testing.assert_frame_equal(ours, theirs)  # none lost, none twice, the same numbers to the last bit
