"""An experiment's runs side by side: who gets which GPU, which runs are started, and what is refused before any is."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.helpers.paths import ROOT
from tests.helpers.stand_in_card import fake_driver
from tests.helpers.waiting import is_alive, wait_until
from zoo.cli.main import app
from zoo.errors import ZooError
from zoo.experiments import side_by_side, trials
from zoo.experiments.cards import Need
from zoo.experiments.recipes import load_recipe
from zoo.experiments.side_by_side import run_side_by_side
from zoo.experiments.trials import TRAINED, ZERO_SHOT, run_trials
from zoo.models.memory import GIB
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


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: dict[str, dict[str, Any]], *, cards: int = 1) -> None:
    """Runs that take what `needs` says of cards of 80 GiB, and end as such runs do where there is less."""
    fake_driver(tmp_path, cards, 80 * 1024)
    (tmp_path / "needs.json").write_text(json.dumps(needs))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ZOO_STAND_IN", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(side_by_side, "ZOO", (sys.executable, "-S", "-m", "tests.helpers.stand_in_card"))


def needing(monkeypatch: pytest.MonkeyPatch, *gib: int) -> None:
    told = iter(gib)
    monkeypatch.setattr(side_by_side, "need_of", lambda *_: Need(bytes=next(told) * GIB))


def test_runs_that_fit_side_by_side_never_take_more_than_there_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, {name: {"takes": 50 * GIB} for name in ("one", "again", "wide")})
    needing(monkeypatch, 50, 50, 50)
    said: list[str] = []
    run_side_by_side(folder, tmp_path, 3, tmp_path / "store", logs=tmp_path / "logs", say=said.append)
    assert said == [f"{name}: done" for name in ("one", "again", "wide")]
    found = json.loads((tmp_path / "taken.json").read_text())
    assert found["most"] == {"0": 50 * GIB} and [share for _, _, share in found["order"]] == [50 * GIB] * 3


def test_a_run_that_is_out_of_memory_is_run_again_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were said to need 20 GiB and take 50: the second and third find too little, and get the card for themselves."""
    stand_in(tmp_path, monkeypatch, {name: {"takes": 50 * GIB, "seconds": 1.5} for name in ("one", "again", "wide")})
    needing(monkeypatch, 20, 20, 20)
    said: list[str] = []
    run_side_by_side(folder, tmp_path, 3, tmp_path / "store", logs=tmp_path / "logs", say=said.append)
    assert sorted(line for line in said if "done" in line) == ["again: done", "one: done", "wide: done"]
    again = [line for line in said if "out of memory" in line]
    told = "out of memory beside other runs; once more, with its GPUs to itself"
    assert len(again) == 2 and all(line.endswith(told) for line in again)
    found = json.loads((tmp_path / "taken.json").read_text())
    assert found["most"] == {"0": 50 * GIB}
    assert len(found["order"]) == 5 and [share for _, _, share in found["order"]].count(None) == 2
    failed = next(line.partition(":")[0] for line in again)
    assert "OutOfMemoryError" in next((tmp_path / "logs").glob(f"{['one', 'again', 'wide'].index(failed):02d}.log")).read_text()


def test_a_run_that_is_too_large_fails_once_it_was_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"one": {"takes": 90 * GIB}, "again": {"takes": GIB, "killed": True}, "wide": {"takes": GIB, "code": 1}}
    stand_in(tmp_path, monkeypatch, needs)
    needing(monkeypatch, 20, 20, 20)
    said: list[str] = []
    with pytest.raises(ZooError, match=r"2 runs failed: one \(.*00\.log\), wide \(.*02\.log\)"):
        run_side_by_side(folder, tmp_path, 3, tmp_path / "store", logs=tmp_path / "logs", say=said.append)
    assert "again: done" in said, "the kernel had ended it, and beside nobody it went well"
    tried = Counter(title for title, _, _ in json.loads((tmp_path / "taken.json").read_text())["order"])
    assert tried == {"one": 2, "again": 2, "wide": 1}, "what failed for another reason is not tried again"


def test_runs_get_gpus_of_the_caller_s_and_only_those_asked_for_are_started(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[-1])"
    monkeypatch.setattr(side_by_side, "ZOO", (sys.executable, "-c", tell))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    run_side_by_side(folder, tmp_path, 1, tmp_path / "store", logs=tmp_path / "logs", only=["one", "wide"], say=lambda _: None)
    said = {path.name: path.read_text().strip() for path in (tmp_path / "logs").iterdir()}
    assert said == {"00.log": "3 one", "02.log": "3,5 wide"}
    with pytest.raises(ZooError, match="no run other; it has one, again, wide"):
        run_side_by_side(folder, tmp_path, 1, tmp_path / "store", logs=tmp_path / "logs", only=["other"], say=lambda _: None)


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
            run_side_by_side(folder, tmp_path, 1, tmp_path / "store", logs=logs, say=lambda _: None)
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
        lambda: run_side_by_side(folder, tmp_path, 2, tmp_path / "store", logs=tmp_path / "logs", say=lambda _: None),
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
        manifest = SimpleNamespace(stage="evaluate")
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
