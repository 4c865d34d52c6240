"""An experiment's runs side by side: who gets which GPU, which runs are started, and what is refused before any is."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.helpers.waiting import is_alive, wait_until
from zoo.cli.main import app
from zoo.errors import ZooError
from zoo.experiments import side_by_side, trials
from zoo.experiments.recipes import load_recipe
from zoo.experiments.side_by_side import Cards, run_side_by_side
from zoo.experiments.trials import TRAINED, ZERO_SHOT, run_trials
from zoo.scores.tables import EVALUATED, score_table, write_scores
from zoo.store import fingerprint

RECIPE = """
question = "?"
data = "votes.csv"
also_on = ["dev.csv"]
until = "train"
[[runs]]
entry = "smollm2-135m"
name = "one"
[[runs]]
entry = "smollm2-135m"
name = "again"
[[runs]]
entry = "smollm2-135m"
name = "wide"
set = ["train.gpus=2"]
"""


@pytest.fixture
def folder(tmp_path: Path, sample_csv: Path) -> Path:
    for name in ("votes.csv", "dev.csv"):
        (tmp_path / name).write_bytes(sample_csv.read_bytes())
    (tmp_path / "001-runs").mkdir()
    (tmp_path / "001-runs" / "recipe.toml").write_text(RECIPE)
    return tmp_path / "001-runs"


@pytest.mark.parametrize(("gpus", "jobs"), [(1, 1), (2, 2), (2, 3), (3, 2), (4, 9)])
def test_no_gpu_has_more_runs_than_the_jobs_need(gpus: int, jobs: int) -> None:
    names = [f"GPU-{i}" for i in range(gpus)]
    cards, now, most = Cards(names, jobs), Counter[str](), Counter[str]()

    def one(count: int) -> None:
        with cards.lent(count) as place:
            mine = place["CUDA_VISIBLE_DEVICES"].split(",")
            assert len(set(mine)) == len(mine) == min(count, gpus) and set(mine) <= set(names)
            now.update(mine)
            most.update({name: max(0, now[name] - most[name]) for name in mine})
            time.sleep(0.001)
            now.subtract(mine)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, random.Random(0).choices([1, 1, 2, 3], k=60)))
    assert max(most.values()) <= -(-jobs // gpus)


def test_runs_get_gpus_of_the_caller_s_and_only_those_asked_for_are_started(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[-1])"
    monkeypatch.setattr(side_by_side, "ZOO", (sys.executable, "-c", tell))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    run_side_by_side(folder, tmp_path, 1, logs=tmp_path / "logs", only=["one", "wide"], say=lambda _: None)
    said = {path.name: path.read_text().strip() for path in (tmp_path / "logs").iterdir()}
    assert said == {"00.log": "3 one", "02.log": "3,5 wide"}
    with pytest.raises(ZooError, match="no run other; it has one, again, wide"):
        run_side_by_side(folder, tmp_path, 1, logs=tmp_path / "logs", only=["other"], say=lambda _: None)


def test_an_interrupt_ends_the_runs_and_starts_no_more(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill -INT` on this process alone: one run is at work, the others wait for their turn."""
    forever = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(1000)"
    monkeypatch.setattr(side_by_side, "ZOO", (sys.executable, "-c", forever))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    logs = tmp_path / "logs"

    def interrupt() -> None:
        wait_until(lambda: (logs / "00.log").exists() and (logs / "00.log").read_text().strip(), "the first run")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
            pool.submit(interrupt)
            run_side_by_side(folder, tmp_path, 1, logs=logs, say=lambda _: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not is_alive(int((logs / "00.log").read_text().split()[0]))
    assert [path.name for path in logs.iterdir() if path.read_text()] == ["00.log"]


def test_the_command_line_trains_only_what_it_names(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(side_by_side, "run_side_by_side", lambda *_, **options: asked.append(options["only"]))
    monkeypatch.setattr(trials, "run_trials", lambda *_, **options: asked.append(options["only"]) or [])
    arguments = ["experiment", str(folder), "--data-dir", str(tmp_path), "--only", "again", "--jobs", "2"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and [list(names) for names in asked] == [["again"], ["again"]]


def test_a_file_without_labels_is_refused_by_name_before_anything_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_csv(tmp_path / "dev.csv", dtype=str, keep_default_na=False)
    frame.drop(columns=[name for name in frame if name.startswith("winner_")]).to_csv(tmp_path / "dev.csv", index=False)
    monkeypatch.setattr(trials, "run_chain", lambda *_, **__: pytest.fail("something ran"))
    monkeypatch.setattr(side_by_side, "ZOO", ("false",))
    for start in (
        lambda: run_trials(folder, tmp_path, tmp_path / "store", say=lambda _: None),
        lambda: run_side_by_side(folder, tmp_path, 2, logs=tmp_path / "logs", say=lambda _: None),
    ):
        with pytest.raises(ZooError, match=r"also_on: .*dev\.csv: no row is labelled"):
            start()
    (tmp_path / "dev.csv").unlink()
    with pytest.raises(ZooError, match=r"dev\.csv: cannot be read .*No such file"):
        run_trials(folder, tmp_path, tmp_path / "store", say=lambda _: None)


def test_runs_of_equal_settings_are_both_shown_and_zero_shot_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = pd.read_csv(tmp_path / "dev.csv", dtype=str)["id"].tolist()
    write_scores(score_table(ids, np.full((len(ids), 3), 1 / 3)), tmp_path / EVALUATED)

    def stored(requests: list[Any], *_: Any, **__: Any) -> list[Any]:
        manifest = SimpleNamespace(metrics={"val/refinement": 1.0})
        return [SimpleNamespace(path=tmp_path, fingerprint=fingerprint(requests[0]), manifest=manifest)]

    monkeypatch.setattr(trials, "run_chain", stored)
    found = run_trials(folder, tmp_path, tmp_path / "store", only=["one", "again"], say=lambda _: None)
    shown = [(trial.name, trial.form, trial.data) for trial in found]
    files = ("votes.csv", "dev.csv")
    expected = [("smollm2-135m", ZERO_SHOT, data) for data in files]
    assert shown == expected + [(name, TRAINED, data) for name in ("one", "again") for data in files]


def test_all_folds_of_trained_models_are_asked_for_run_by_run(folder: Path) -> None:
    (folder / "recipe.toml").write_text(RECIPE.replace('until = "train"', 'until = "train"\nall_folds = true'))
    with pytest.raises(ZooError, match=r"all_folds .*average = true"):
        load_recipe(folder)
