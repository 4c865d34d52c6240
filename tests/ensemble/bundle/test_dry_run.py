"""The dry run of a bundle: each of its runs, what is told of them, and that no attempt to reach a network goes unseen."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ensemble.bundle import dry_run as dry
from ensemble.bundle.dry_run import TRIALS, Trial, dry_run, refused, write_rows
from tests.ensemble.predict.test_predict_lexical import trained  # noqa: F401
from tests.helpers.bundles import small_bundle
from tests.zoo.bundle.notebook.scenes import MEMBER_IN_EVERY_ROW, Scene, make_scene, stand_in
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.errors import ZooError

isolated = pytest.mark.skipif(bool(refused()), reason="needs namespaces of its own")
ASKS = """
import socket
try:
    socket.create_connection(("192.0.2.7", 443), timeout=5)
except OSError as error:
    print(error)
"""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    write_sample(tmp_path / "battles.csv", 30, 5)
    return make_scene(tmp_path)


def run(scene: Scene, *only: str, body: str = MEMBER_IN_EVERY_ROW, engine: str = "vllm_cpu") -> dict[str, Trial]:
    environment = Path(stand_in(scene.folder / "environment", body, engine=engine))
    said: list[str] = []
    trials = dry_run(scene.made, scene.folder / "battles.csv", environment=environment, say=said.append, only=only)
    assert [trial.line() for trial in trials] == [line for line in said if line.startswith(("ok", "FAIL"))]
    return {trial.name: trial for trial in trials}


@isolated
def test_every_run_leaves_a_whole_file(scene: Scene) -> None:
    trials = run(scene, *[name for name in TRIALS if name != "25,000 rows"])  # that one takes its time: below
    assert len(trials) == len(TRIALS) - 1 >= 7
    assert [trial.line() for trial in trials.values() if not trial.whole] == []
    assert "model-1 (big@ab) is not mounted" in trials["one missing"].done
    assert "big@ab left out (model-1 is not mounted)" in trials["one missing"].came
    assert "big@ab left out (model-1: " in trials["one damaged"].came and "is damaged" in trials["one damaged"].came
    assert "left out" not in trials["one doubled"].came + trials["20 rows"].came
    assert "20 rows, ALL the plan's prior" in trials["budget spent"].came and "No space left" not in trials["20 rows"].came
    assert "predict.json" in trials["full disk"].came


@isolated
def test_an_attempt_to_reach_a_network_is_an_error_that_is_seen(scene: Scene) -> None:
    trial = run(scene, "20 rows", body=ASKS + MEMBER_IN_EVERY_ROW)["20 rows"]
    assert not trial.whole and "1 attempts to reach a network" in trial.came and trial.line().startswith("FAIL")


@isolated
def test_a_name_that_is_looked_up_is_such_an_attempt(scene: Scene) -> None:
    body = ASKS.replace("192.0.2.7", "weights.example.org") + MEMBER_IN_EVERY_ROW
    trial = run(scene, "20 rows", body=body)["20 rows"]
    assert not trial.whole and "attempts to reach a network" in trial.came


@isolated
def test_inputs_are_read_only(scene: Scene) -> None:
    """As they are mounted in a notebook: what would write there is seen."""
    body = "(test.parent / 'x').touch()" + MEMBER_IN_EVERY_ROW
    trial = run(scene, "20 rows", body=body)["20 rows"]
    assert "ALL the plan's prior" in trial.came and sorted(path.name for path in (scene.made).iterdir()) == ["job", "model-1"]


def test_without_namespaces_it_says_what_is_not_proven(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry, "refused", lambda: "unshare failed: Operation not permitted")
    said: list[str] = []
    environment = Path(stand_in(scene.folder / "environment", MEMBER_IN_EVERY_ROW, engine="vllm_cpu"))
    only = ("20 rows", "one doubled", "full disk")
    trials = dry_run(scene.made, scene.folder / "battles.csv", environment=environment, say=said.append, only=only)
    assert "Operation not permitted" in said[0] and "the network is not cut off" in said[0]
    assert all(trial.whole for trial in trials) and "not tried" in trials[2].came


def test_a_script_that_fails_is_told_with_its_last_line(scene: Scene) -> None:
    (scene.made / "job" / "script" / "stages.py").write_text("raise RuntimeError('a fault of the script')")
    trial = run(scene, "20 rows")["20 rows"]
    assert not trial.whole and "exit code 1" in trial.came and "a fault of the script" in trial.came


def test_rows_of_a_battles_file_without_winners_and_over_again(tmp_path: Path) -> None:
    write_sample(tmp_path / "battles.csv", 30, 5)
    write_rows(tmp_path / "battles.csv", tmp_path / "test.csv", 70)
    with (tmp_path / "test.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["id", "prompt", "response_a", "response_b"]
    before, after = read_battles(tmp_path / "battles.csv"), read_battles(tmp_path / "test.csv")
    assert after.ids[:30] == before.ids and len(set(after.ids)) == len(after.ids) == 70
    assert after.frame["prompt"].iloc[1] == before.frame["prompt"].iloc[1]


@pytest.mark.parametrize("text", ["", "id,prompt\n1,x\n", "id,prompt,response_a,response_b\n"])
def test_a_file_of_no_battles(scene: Scene, text: str) -> None:
    (scene.folder / "battles.csv").write_text(text)
    with pytest.raises(ZooError, match="no battles with the columns"):
        run(scene, "20 rows")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"ensemble bundle PLAN"):
        dry_run(tmp_path, tmp_path / "battles.csv")


@isolated
@pytest.mark.slow
def test_a_lexical_member_is_predicted_in_every_run_that_allows_it(trained: tuple[Path, Path], tmp_path: Path) -> None:  # noqa: F811
    store, plan = trained
    (lexical,) = (path.name for path in store.glob("lexical-train-*"))
    small_bundle(tmp_path / "bundle", plan, store, in_job=[lexical])
    write_sample(tmp_path / "battles.csv", 50, 9)
    trials = {trial.name: trial for trial in dry_run(tmp_path / "bundle", tmp_path / "battles.csv")}
    assert [trial.line() for trial in trials.values() if not trial.whole] == []
    for name in ("20 rows", "one missing", "one doubled", "one card"):
        assert "20 rows lexical@ab" in trials[name].came
    assert "lexical@ab left out (job: " in trials["one damaged"].came and "ALL the plan's prior" in trials["budget spent"].came
    assert "25,000 rows lexical@ab" in trials["25,000 rows"].came
