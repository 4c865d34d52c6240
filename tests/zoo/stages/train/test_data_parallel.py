"""Training in two processes (gloo, CPU): the curve of one process, also after a kill, and an end for all where one fails."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_models import TEMPLATE
from tests.helpers.waiting import wait_until
from zoo.contracts import Held, Input, PromptSpec, TrainRequest, TrainSpec
from zoo.errors import ZooError
from zoo.models import batches
from zoo.stages import progress
from zoo.stages.train import data_parallel as ranks
from zoo.stages.train import stage as train

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=96)
SPEC = TrainSpec(
    method="lora", rank=4, dropout=0.0, learning_rate=5e-3, eval_rows=12, max_rows=40, batch_rows=8, micro_batch_tokens=200
)


@given(st.lists(st.integers(1, 10**6), max_size=30), st.integers(1, 8))
def test_all_work_is_shared_once_and_evenly(costs: list[int], count: int) -> None:
    shares = [ranks.Ranks(rank, count).share(costs) for rank in range(count)]
    assert sorted(i for share in shares for i in share) == list(range(len(costs)))
    loads = [sum(costs[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


@given(st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 4))
def test_micro_batches_are_cut_until_every_rank_has_as_many(sizes: list[list[int]], count: int) -> None:
    lengths = [length for batch in sizes for length in sorted(batch)]
    starts = np.cumsum([0, *map(len, sizes)])
    whole = [list(range(a, b)) for a, b in itertools.pairwise(starts)]
    pieces = batches.dealt(whole, lengths, count)
    assert [i for piece in pieces for i in piece] == list(range(len(lengths))), "each row once, in order"
    assert len(pieces) % count == 0 or all(len(piece) == 1 for piece in pieces)
    assert len(pieces) < len(whole) + count and (pieces == whole or len(whole) % count)
    costs = [batches.padded_tokens(piece, lengths) for piece in pieces]
    assert sum(costs) <= sum(batches.padded_tokens(batch, lengths) for batch in whole), "no more padding than before"


def request_of(base: Path, battles: Path, folder: Path, spec: TrainSpec = SPEC) -> TrainRequest:
    (folder / "base").mkdir()
    (folder / "base" / "model").symlink_to(base)
    inputs = {name: Input(path=path, fingerprint="x") for name, path in (("base", folder / "base"), ("battles", battles))}
    return TrainRequest(entry="tiny", **inputs, held=Held(), prompt=PROMPT, spec=spec)


@pytest.mark.slow
def test_two_processes_that_were_killed_have_the_curves_of_one(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, out = request_of(tiny_llama, sample_csv, tmp_path), tmp_path / "killed"
    for folder in (out, tmp_path / "one"):
        folder.mkdir()
    alone = train.run(request, tmp_path / "one")
    kill_after_checkpoint(request, out)
    with (tmp_path / "terminal").open("w") as terminal:
        monkeypatch.setattr(progress, "_terminal", terminal)
        both = ranks.launch(request, out, 2)
    assert "going on from step 1" in (tmp_path / "terminal").read_text()
    for name in ("train/loss", "held_out/log_loss"):
        assert np.allclose(both.curves[name], np.array(alone.curves[name]), rtol=0, atol=1e-4), name
    assert {p.name for p in out.iterdir()} >= {"adapter", "result.json"}
    assert not list(out.glob("rank*")) and not (out / "checkpoint").exists()


STOPS_AT_CHECKPOINT = """#!{python}
# The interpreter of a rank that does nothing more once it has saved a checkpoint.
import runpy, sys, time
from zoo.stages.train import stage
save = stage.save_checkpoint
stage.save_checkpoint = lambda *arguments, **options: (save(*arguments, **options), time.sleep(900))
del sys.argv[1:3]  # -m zoo.stages
runpy.run_module("zoo.stages", run_name="__main__", alter_sys=True)
"""
LAUNCH = """
import sys
from pathlib import Path
from zoo.contracts import TrainRequest
from zoo.stages.train import data_parallel
sys.executable = sys.argv[3]
data_parallel.launch(TrainRequest.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), 2)
"""


def kill_after_checkpoint(request: TrainRequest, folder: Path) -> None:
    """Start two ranks in a process of their own and kill all three, without warning, once a checkpoint is there."""
    asked, interpreter = folder.parent / "request.json", folder.parent / "python"
    asked.write_text(request.model_dump_json())
    interpreter.write_text(STOPS_AT_CHECKPOINT.format(python=sys.executable))
    interpreter.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, asked, folder, interpreter], start_new_session=True)
    try:
        wait_until((folder / "checkpoint" / "state.json").exists, "a checkpoint", process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < json.loads((folder / "checkpoint" / "state.json").read_text())["progress"]["step"] < 5


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_others_with_its_message(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    """A rate without bound: some rank's loss is not finite, and the ids of its rows are said."""
    (tmp_path / "out").mkdir()
    spec = SPEC.model_copy(update={"learning_rate": 1e30, "warmup_fraction": 0.0})
    ids = {row["id"] for row in csv.DictReader(sample_csv.open())}
    with pytest.raises(ZooError, match=r"training diverged at step \d+: .* on rows ") as error:
        ranks.launch(request_of(tiny_llama, sample_csv, tmp_path, spec), tmp_path / "out", 2)
    named = str(error.value).split(" on rows ")[1].split(";")[0].split(", ")
    assert set(named) <= ids


def test_too_few_gpus_are_said_before_anything_loads(tmp_path: Path, sample_csv: Path) -> None:
    spec = SPEC.model_copy(update={"gpus": torch.cuda.device_count() + 2})
    with pytest.raises(ZooError, match=rf"train\.gpus = {spec.gpus}: {spec.gpus - 2} GPUs are visible here"):
        train.run(request_of(tmp_path / "none", sample_csv, tmp_path, spec), tmp_path)
