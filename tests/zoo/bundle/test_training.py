"""Folds trained within a notebook's hours, gone on with by its next run, and taken home: the real stage on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.tiny_models import TEMPLATE
from tests.helpers.waiting import wait_until
from zoo.bundle.trained import ARCHIVE, Trained, unpack
from zoo.bundle.training import CHECKPOINTS, Orders, Training
from zoo.contracts import Entry, Held, Selection
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain
from zoo.store import PARTIAL, find, write_atomic

pytestmark = [pytest.mark.chain, pytest.mark.timeout(600)]

ENTRY = {
    "name": "tiny",
    "base": {"hub_id": "test/tiny", "architecture": "LlamaForCausalLM", "parameters": 300_000, "licence": "none"},
    "prompt": {"template": TEMPLATE, "max_tokens": 160},
    "train": {"rank": 4, "alpha": 8, "eval_rows": 30, "batch_rows": 4, "epochs": 2, "evals_per_epoch": 8},
    "quantize": {"group_size": 32, "calibration_rows": 4, "calibration_tokens": 64},
    "score": {"variants": [{"order": "ab", "max_tokens": 160}]},
}


def start(
    folder: Path, training: Training, battles: Path, store: Path, *, earlier: tuple[Path, ...] = ()
) -> subprocess.Popen[str]:
    folder.mkdir()
    write_atomic(folder / "training.json", training.model_dump_json())
    write_atomic(folder / "orders.json", Orders(store=store, ends_at=time.time() + 500, earlier=earlier).model_dump_json())
    words = ["training.json", "orders.json", str(battles), str(folder)]
    command = [sys.executable, "-m", "zoo.bundle.training", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(root)}, **pipes)  # type: ignore[call-overload]


def test_two_runs_of_a_notebook_train_what_the_store_at_home_takes(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    entry, home = Entry.model_validate(ENTRY), tmp_path / "home" / "store"
    held = Held(rule="near-prompts-1")
    requests = chain(entry, battles_input(sample_csv), "cpu", home, held=held, selection=Selection(), source=str(tiny_llama))
    (base,) = run_chain(requests[:1], entry, home, say=lambda _: None, track=False)
    training = Training(entry=entry, base=base.path.name, n_folds=5, rule=held.rule, folds=(0,))

    def notebook(name: str) -> Path:
        """A store as the script of the notebook makes it: links to what is mounted."""
        store = tmp_path / name / "store"
        store.mkdir(parents=True)
        (store / base.path.name).symlink_to(base.path)
        return store

    first = notebook("first")
    process = start(tmp_path / "first" / "working", training, sample_csv, first)
    wait_until(lambda: any(list((first / PARTIAL).glob(f"*/{place}")) for place in CHECKPOINTS), "a checkpoint", process)
    process.send_signal(signal.SIGALRM)  # the hours are over
    said, _ = process.communicate()
    assert process.returncode == 0, said
    left = Trained.model_validate_json((tmp_path / "first" / "working" / "trained.json").read_text())
    assert [(fold.finished, fold.steps is not None) for fold in left.folds] == [(False, True)], said
    assert "the hours are over" in said and "error" not in said

    archive = tmp_path / "first" / "working" / ARCHIVE
    process = start(tmp_path / "second", training, sample_csv, notebook("second-store"), earlier=(archive, sample_csv))
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "goes on from step" in said and "warning" in said, "the other file among the inputs is no archive"
    left = Trained.model_validate_json((tmp_path / "second" / "trained.json").read_text())
    assert [fold.finished for fold in left.folds] == [True]

    unpack(tmp_path / "second" / ARCHIVE, home)
    found = find(home, requests[1])
    assert found is not None, "the request of `zoo train` at home is the notebook's"
    assert json.loads((found.path / "adapter" / "adapter_config.json").read_text())["r"] == 4
