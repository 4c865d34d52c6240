"""`zoo data mine` and `zoo data label`: from a log to labelled battles, taken over when they are there, and killed half way."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.logs import log_of, write_log
from tests.helpers.made import MODELS, invoke
from zoo.data.battles import read_battles
from zoo.data.columns import VOTES
from zoo.data.made import beside, report_beside
from zoo.errors import ZooError
from zoo.settings import store_folder
from zoo.store import list_artifacts
from zoo.tracking.home import is_marked


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log.jsonl", ["{bad", *log_of(40, MODELS)])


def test_from_a_log_to_labelled_battles(tmp_path: Path, log: Path) -> None:
    pairs, labelled = tmp_path / "pairs.csv.gz", tmp_path / "made" / "labelled.parquet"
    told = invoke("mine", log, "-o", pairs, "--rows", 150)
    assert "150 pairs of 4 models, 40 prompts" in told and "--rows ended it" in told and "not a JSON object" in told
    battles = read_battles(pairs)
    assert len(battles.frame) == 150
    y = np.array([sum(map(ord, row_id)) % 3 for row_id in battles.frame["id"]])
    human = pd.read_csv(pairs)
    human[["winner_model_a", "winner_model_b", "winner_tie"]] = np.eye(3, dtype=int)[y]
    human.to_csv(tmp_path / "human.csv", index=False)
    said = np.where(np.arange(150) % 5, y, (y + 1) % 3)
    judge = pd.DataFrame(0.7 * np.eye(3)[said] + 0.1, columns=["p_a", "p_b", "p_tie"]).assign(id=human["id"])
    judge.to_csv(tmp_path / "judge.csv", index=False)
    asked = ("label", pairs, "--judge", tmp_path / "judge.csv", "--human", tmp_path / "human.csv", "-o", labelled)
    told = invoke(*asked)
    assert "judge: 150 rows, 40 prompts" in told and "mapped with length" in told and "REFUSED" not in told
    assert read_battles(labelled, keep=VOTES).labelled
    assert {is_marked(artifact.path.name) for artifact in list_artifacts(store_folder(), "mine", "label")} == {True}, (
        "in MLflow"
    )
    report = json.loads(labelled.with_name("labelled.parquet.report.json").read_text())
    assert json.loads(invoke(*asked, "--json")) == report and report["rows"] == 150


def test_what_is_there_is_taken_over_and_a_change_is_made_anew(tmp_path: Path, log: Path, own_home: Path) -> None:
    out = tmp_path / "pairs.csv"
    for words in ((), (), ("--seed", 1)):
        invoke("mine", log, "-o", out, *words)
        moved = log.rename(tmp_path / f"moved{len(words)}.jsonl")
        moved.rename(log)
    assert len(list((own_home / "store").glob("mine-*"))) == 2
    elsewhere = tmp_path / "again.csv.gz"
    invoke("mine", log, "-o", elsewhere, "--seed", 1)
    assert gzip.decompress(elsewhere.read_bytes()) == out.read_bytes()
    assert len(list((own_home / "store").glob("mine-*"))) == 2


@pytest.mark.parametrize("words", [(), ("--per-prompt", "6")])
def test_a_killed_one_leaves_no_half_file_and_the_same_command_makes_it(
    tmp_path: Path, log: Path, own_home: Path, words: tuple[str, ...]
) -> None:
    out = tmp_path / "pairs.csv"
    command = [sys.executable, "-m", "zoo", "data", "mine", str(log), "-o", str(out), *words]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(own_home.glob("store/.partial/mine-*/request.json")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("pairs.csv*")) == [] and list(own_home.glob("store/mine-*")) == []
    invoke("mine", log, "-o", out, *words)
    assert len(read_battles(out).frame) == (240 if words else 40)


@pytest.mark.parametrize("name", ["pairs.txt", "pairs"])
def test_the_name_says_the_format(tmp_path: Path, log: Path, name: str) -> None:
    with pytest.raises(ZooError, match=r"ends in \.parquet, \.csv or \.csv\.gz"):
        invoke("mine", log, "-o", tmp_path / name)


def test_no_output_takes_the_place_of_an_input(tmp_path: Path, log: Path) -> None:
    table = tmp_path / "log.csv"
    log.rename(table)
    with pytest.raises(ZooError, match="the output would replace"):
        invoke("mine", table, "-o", table)
    beside = tmp_path / "pairs.csv.report.json"
    beside.write_text(table.read_text())
    with pytest.raises(ZooError, match="the output would replace"):
        invoke("mine", beside, "-o", tmp_path / "pairs.csv")


def test_the_same_pairs_are_the_same_bytes_under_every_name(tmp_path: Path, log: Path) -> None:
    """Else what is made from a file would be made again for each copy of it."""
    first, second = tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"
    for out in (first, second):
        invoke("mine", log, "-o", out)
    assert first.read_bytes() == second.read_bytes()


def test_a_report_of_another_run_is_told(tmp_path: Path, log: Path, own_home: Path) -> None:
    """What a kill between the two files leaves: the report of the new one beside the old one."""
    out, other = tmp_path / "pairs.csv", tmp_path / "other.csv"
    invoke("mine", log, "-o", out)
    invoke("mine", log, "-o", other, "--seed", 1)
    assert report_beside(out)["artifacts"] != report_beside(other)["artifacts"]
    beside(out).write_bytes(beside(other).read_bytes())
    with pytest.raises(ZooError, match=r"pairs\.csv: changed since, or of another run"):
        report_beside(out)
    invoke("mine", log, "-o", out, "--seed", 1)
    assert report_beside(out)["rows"] == 40
