"""The Python API on a small store: what each function leaves is what its command leaves, and shows itself as that does."""

from __future__ import annotations

import html
import inspect
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import preference_zoo as pz
from ensemble.plan import load_plan
from preference_zoo.shown import Notes, Shown, bars
from tests.helpers.command_lines import run_command
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_until
from zoo.cli.main import main as zoo_main
from zoo.data.sample import write_sample
from zoo.store import LIVE

WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pz.battles(write_sample(tmp_path_factory.mktemp("votes") / "votes.csv", rows=90, seed=3).path)


@pytest.fixture(scope="module")
def made(votes: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the lexical entry and a table from elsewhere, scored on the same frame."""
    home = tmp_path_factory.mktemp("made") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        pz.run("lexical", votes)
        pz.import_scores(table(votes, 0.6), "theirs", labels=votes, target="cpu", seconds_per_row=0.01, gpus=0)
    return home


@pytest.fixture
def home(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ZOO_HOME", str(made))
    monkeypatch.chdir(tmp_path)
    return made


def table(votes: pd.DataFrame, sees: float, seed: int = 0) -> pd.DataFrame:
    noise = np.random.default_rng(seed).normal(size=(len(votes), 3))
    p = np.exp(sees * votes[WINNERS].to_numpy(dtype=float) + 0.5 * noise)
    return votes[["id"]].join(pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"]))


def test_names_are_few_and_each_is_explained_and_typed() -> None:
    functions = [name for name in pz.__all__ if inspect.isfunction(getattr(pz, name))]
    assert len(functions) == 11 and len(pz.__all__) <= 20
    for name in functions:
        function = getattr(pz, name)
        assert ">>>" in inspect.getdoc(function), f"{name} has an example"
        signature = inspect.signature(function)
        assert all(p.annotation is not p.empty for p in signature.parameters.values()) and signature.return_annotation
    assert (ROOT / "preference_zoo" / "py.typed").exists()
    assert [name for name in pz.__all__ if f"`{name}" not in (ROOT / "docs" / "python.md").read_text()] == []


def test_importing_it_loads_nothing_heavy_and_does_nothing() -> None:
    heavy = ("torch", "vllm", "mlflow", "optuna", "sklearn", "scipy", "matplotlib", "transformers", "typer", "tqdm")
    program = f"""
import sys, os
before = dict(os.environ)
import preference_zoo
print([name for name in {heavy} if name in sys.modules], before == os.environ)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[] True", done.stderr


def test_a_frame_is_run_once_and_the_leaderboard_is_that_of_the_command(
    home: Path, votes: pd.DataFrame, tmp_path: Path
) -> None:
    again = pz.run("lexical", votes.sample(frac=1, random_state=0))
    assert "in the store" not in repr(again) and len(list((home / "store").glob("lexical-score-*"))) == 1, "by content"
    assert repr(again).startswith("Run(lexical: log loss ") and str(tmp_path) not in repr(again)
    board = pz.leaderboard()
    done = run_command(zoo_main, "zoo", "leaderboard", "--json", home=home, folder=tmp_path)
    assert json.loads(board.to_json(orient="records"))[0].keys() == json.loads(done.stdout)[0].keys()
    assert board["member"].tolist() == [row["member"] for row in json.loads(done.stdout)]
    assert repr(board).startswith("Leaderboard(2 members, the lowest log loss ") and "theirs" in str(board)
    assert type(board[["member"]]) is pd.DataFrame and "<table" in board._repr_html_()
    assert again.log_loss == pytest.approx(board.set_index("member")["log_loss"]["lexical@ab"])


def test_from_a_plan_to_its_evaluation(home: Path, votes: pd.DataFrame, tmp_path: Path) -> None:
    plan = pz.build(budget="5m", target="cpu", rows=90, trials=0, battles=votes, include=["theirs"], pools=["linear"])
    assert load_plan(Path("plan.json")) == plan.contents and repr(plan) == repr(pz.Plan("plan.json"))
    page = plan._repr_html_()
    assert html.escape("<!doctype html>") in page.lower() and str(tmp_path) not in html.unescape(page)
    other = pz.battles(write_sample(tmp_path / "other.csv", rows=60, seed=8).path)
    tables = {"theirs": table(other, 0.6, seed=5)}
    submission = plan.predict(other, scores=tables)
    assert submission.equals(pd.read_csv("submission.csv", dtype={"id": str}, float_precision="round_trip"))
    assert submission["id"].tolist() == other["id"].tolist()
    assert np.allclose(submission[WINNERS].sum(axis=1), 1)
    judged = plan.evaluate(other, submission).set_index("name")
    assert judged.loc["blend", "rows"] == 60 and plan.contents.members[0].name in judged.index
    new = plan.recalibrate(other, scores=tables)
    assert new.path == Path("plan-recalibrated.json") and new.contents.calibration.battles == "labels.csv"
    with pytest.raises(pz.ZooError, match=r"^labels: the plan was fitted on all of its 90 labelled rows; give others"):
        plan.recalibrate(votes, scores={"theirs": table(votes, 0.6)})


def test_tables_alone_need_no_store(
    votes: pd.DataFrame, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables = {name: table(votes, see, seed) for seed, (name, see) in enumerate({"a": 0.4, "b": 0.7}.items())}
    plan = pz.build(scores=tables, labels=votes[["id", *WINNERS]], trials=0, pools=["linear"])
    assert [member.name for member in plan.contents.members] == ["b"] and not own_home.exists()
    tables["b"].loc[:, ["p_a", "p_b", "p_tie"]] = [1.0, 0.0, 0.0]
    assert plan.log_loss == pz.Plan("plan.json").log_loss < 0.9, "a plan is of the tables as they were"
    submission = plan.predict(scores={"b": table(votes, 0.7)})
    assert submission["id"].tolist() == votes["id"].tolist() and not own_home.exists()
    with pytest.raises(pz.ZooError, match=r"^give the battles to predict, or the members' tables"):
        plan.predict()
    with pytest.raises(TypeError, match="bugdet"):
        pz.build(scores=tables, labels=votes, bugdet="9h")


def test_a_frontier_has_its_files_and_its_picture(home: Path, votes: pd.DataFrame) -> None:
    points = pz.frontier(target="cpu", rows=90, trials=0, points=2, battles=votes, pools=["linear"])
    assert Path("frontier/frontier.json").exists() and "data:image/png;base64," in points._repr_html_()
    assert points["oof_log_loss"].is_monotonic_decreasing and repr(points).startswith("Frontier(")


def test_checks_and_costs_are_frames(home: Path) -> None:
    assert (pz.check("llama-3-8b", target="t4x2")["verdict"] != "fail").all()
    cost = pz.cost("llama-3-8b", target="t4x2", rows=25_000)
    assert (cost["seconds_low"] < cost["seconds_high"]).all() and "published" in str(cost)


def test_a_store_is_opened_for_all_that_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_HOME", "elsewhere")
    assert repr(pz.open_store("mine")) == "Store('mine': 0 scored members)"
    assert os.environ["ZOO_HOME"] == str(tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(pz.ZooError, match="file: is no folder"):
        pz.open_store("file")


def test_two_homes_in_one_process_do_not_mix(tmp_path: Path, votes: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores, tracking databases and what is remembered of them: each home has its own member, and only that."""
    monkeypatch.setenv("ZOO_HOME", "elsewhere")
    share = pd.DataFrame({"id": votes["id"], "p_a": 0.4, "p_b": 0.3, "p_tie": 0.3})
    price = {"target": "t4x2", "load_seconds": 1.0, "seconds_per_row": 0.1}
    for home, member in (("a", "first"), ("b", "second"), ("a", "third")):
        pz.open_store(tmp_path / home)
        pz.import_scores(share, member, labels=votes, **price)
    found = {}
    for home in ("b", "a", "b"):
        pz.open_store(tmp_path / home)
        found[home] = sorted(pz.leaderboard()["member"])
        with sqlite3.connect(tmp_path / home / "mlflow.db") as database:
            tagged = database.execute("select value from tags where key = 'zoo.member'").fetchall()
        assert sorted(name for (name,) in tagged) == found[home]
        places = [str(path) for path in (tmp_path / home).rglob("*") if path.is_file()]
        other = {"a": "second", "b": "first"}[home]
        assert not any(other in path for path in places)
    assert [len(found["a"]), len(found["b"])] == [2, 1]


def test_a_frame_that_was_changed_shows_itself_and_not_what_it_was() -> None:
    frame = Shown({"x": [1, 2]})
    frame.shown_as("a line", ["<b>the page</b>"])
    assert repr(frame) == "<a line>" and str(frame) == "<b>the page</b>"
    assert frame._repr_html_() == "<p>&lt;b&gt;the page&lt;/b&gt;</p>", "escaped"
    frame.loc[0, "x"] = 7
    assert "7" in repr(frame) and "the page" not in str(frame), "of the same shape"
    frame.loc[0, "x"] = 1
    assert repr(frame) == "<a line>" and pickle.loads(pickle.dumps(frame))["x"].tolist() == [1, 2]
    frame["y"] = 3
    assert "y" in repr(frame) and "the page" not in frame._repr_html_()
    assert type(frame[frame.x > 1]) is pd.DataFrame and type(frame.copy()) is pd.DataFrame


def test_a_stage_shows_its_notes_and_bars_and_none_of_an_earlier_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = tmp_path / LIVE
    live.write_text('{"note": "of a killed run"}\n')
    with bars(tmp_path), live.open("a") as file:
        print('{"note": "reading"}', file=file)
        print('{"bar": {"description": "train", "done": 3, "total": 8, "unit": "step"}}', file=file)
    said = capsys.readouterr()
    assert said.out == "  reading\n" and "train:" in said.err and "3.00/8.00" in said.err


def test_many_steps_are_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    notes = Notes(str.upper)
    notes.step(0, 3, "rehearsing without fold 1 of 3")
    notes.step(1, 3, "rehearsing without fold 2 of 3, about 2 s left")
    notes("done")
    said = capsys.readouterr()
    assert said.out == "DONE\n" and "rehearsing without fold 2 of 3" in said.err and "about" not in said.err


@pytest.mark.services
def test_an_interrupted_stage_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    """As a notebook's kernel is interrupted: SIGINT to it and to what it has started."""
    write_sample(tmp_path / "battles.csv", rows=800, seed=1)
    program = "import preference_zoo as pz; print(pz.run('lexical', 'battles.csv').log_loss)"
    program = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {program}"  # as a kernel has it
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kernel = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    store = Path(os.environ["ZOO_HOME"]) / "store"
    wait_until(lambda: any(store.glob(f".partial/*/{LIVE}")), "a stage began", kernel)
    stages = psutil.Process(kernel.pid).children(recursive=True)
    os.killpg(kernel.pid, signal.SIGINT)
    said, _ = kernel.communicate()
    assert kernel.returncode and "interrupted; the same call goes on from where it stopped" in said
    assert stages and not any(stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE for stage in stages)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and float(done.stdout.splitlines()[-1]) < 1.1, done.stderr
