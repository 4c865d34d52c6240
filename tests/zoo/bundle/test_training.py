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
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.bundles import attach, cell_environment, training_bundle
from tests.helpers.tiny_encoders import encoder_entry, write_encoder
from tests.helpers.tiny_models import TEMPLATE
from tests.helpers.waiting import wait_until
from zoo.bundle.trained import ARCHIVE, Trained, unpack
from zoo.bundle.training import CHECKPOINTS, Orders, Training, dealt, main, side_by_side
from zoo.contracts import Entry, Held, Selection
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain
from zoo.store import PARTIAL, find, write_atomic

real = pytest.mark.chain
pytestmark = [pytest.mark.timeout(600)]

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


@real
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


@real
def test_folds_on_two_cards_are_those_of_one(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    """A process a card; without cards both train on processors."""
    entry = Entry.model_validate({**ENTRY, "train": {**ENTRY["train"], "epochs": 1, "max_rows": 16, "evals_per_epoch": 1}})
    store, held = tmp_path / "store", Held(n_folds=3, fold=2)
    requests = chain(entry, battles_input(sample_csv), "cpu", store, held=held, selection=Selection(), source=str(tiny_llama))
    (base,) = run_chain(requests[:1], entry, store, say=lambda _: None, track=False)
    training = Training(entry=entry, base=base.path.name, n_folds=3, rule=None, folds=(0, 1, 2))
    folds, places = dealt(training.folds, ("0", "1"), 1)
    side_by_side(training, folds, places, Orders(store=store, ends_at=time.time() + 500), sample_csv)
    assert find(store, requests[1]) is not None
    assert len(list(store.glob("train-*/manifest.json"))) == 3


def test_hours_that_left_nothing_are_no_success(tmp_path: Path, sample_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hours were over before the first fold: no archive, which the next run would take for one, and exit code 1."""
    store = tmp_path / "store"
    finished_fetch = store / "fetch-0123456789abcdef"
    finished_fetch.mkdir(parents=True)
    (finished_fetch / "manifest.json").write_text("{}")
    training = Training(entry=Entry.model_validate(ENTRY), base=finished_fetch.name, n_folds=5, rule=None, folds=(0, 1))
    write_atomic(tmp_path / "training.json", training.model_dump_json())
    write_atomic(tmp_path / "orders.json", Orders(store=store, ends_at=time.time() - 1).model_dump_json())
    words = [str(tmp_path / "training.json"), str(tmp_path / "orders.json"), str(sample_csv), str(tmp_path)]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "fold 1: the hours are over" in told.out and "no fold has" in told.err
    assert not (tmp_path / ARCHIVE).exists()


@given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.integers(0, 6), st.integers(1, 3))
def test_every_fold_is_dealt_once_and_no_card_twice(folds: list[int], gpus: int, each: int) -> None:
    names = [str(number) for number in range(gpus)]
    shares, places = dealt(folds, names, each)
    assert len(shares) == len(places) == min(gpus // each, len(folds))
    seen = [name for place in places for name in place.split(",")]
    assert len(set(seen)) == len(seen) == each * len(places)
    if places:
        assert sorted(fold for share in shares for fold in share) == sorted(folds) and all(shares)


@real
@pytest.mark.parametrize("kind", ["causal_lm", "encoder"])
def test_the_script_trains_what_is_attached_and_says_what_is_not(
    kind: str, tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    """The bundle's own script as a cell starts it, with this environment in the place of the wheels'."""
    short = {"epochs": 1, "max_rows": 16, "evals_per_epoch": 1}
    entry, model = Entry.model_validate({**ENTRY, "train": {**ENTRY["train"], **short}}), tiny_llama
    if kind == "encoder":
        made = encoder_entry("ModernBert", train={"method": "full", "learning_rate": 1e-3, "eval_rows": 30, **short})
        entry, model = Entry.model_validate(made), write_encoder(tmp_path / "model", "ModernBert")
    home = tmp_path / "home" / "store"
    requests = chain(entry, battles_input(sample_csv), "cpu", home, held=Held(), selection=Selection(), source=str(model))
    (base,) = run_chain(requests[:1], entry, home, say=lambda _: None, track=False)
    training = Training(entry=entry, base=base.path.name, n_folds=5, rule=None, folds=(0,))
    bundle = training_bundle(tmp_path / "bundle", training, base.path)
    inputs = tmp_path / "input"
    job = attach(bundle, tmp_path / "bundle", inputs, sample_csv)
    battles = inputs / "competitions" / bundle.competition
    (battles / "test.csv").rename(battles / "train.csv")
    environment = cell_environment(tmp_path, inputs, PZ_ENVIRONMENT=sys.prefix)

    def script() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(job / "script")]
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)

    mounted = inputs / "datasets" / bundle.owner / bundle.parts[0].slug
    mounted.rename(tmp_path / "aside")
    refused = script()
    assert refused.returncode == 1 and "model-1 is not mounted" in refused.stdout, refused.stdout + refused.stderr
    (tmp_path / "aside").rename(mounted)
    done = script()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fold 0 finished" in done.stdout.splitlines()[-1]
    unpack(tmp_path / "working" / ARCHIVE, home)
    assert find(home, requests[1]) is not None
