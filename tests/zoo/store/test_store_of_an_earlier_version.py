"""A whole store that version 0.1.0 made, with a plan of it: everything is taken from there, and the plan predicts.

`store-0.1.0.zip` holds 60 generated battles, the lexical entry trained on two folds and scored, a table that was imported, and
a plan of the first, as commit 4bd2866 made them.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest

from ensemble.members.gather import align
from ensemble.predict.run import predict
from zoo.contracts import Held, Selection
from zoo.entries.load import load_entry, override
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.members import score_tables
from zoo.report.leaderboard import leaderboard
from zoo.scores.tables import read_submission


@pytest.fixture
def home(own_home: Path) -> Path:
    zipfile.ZipFile(Path(__file__).with_name("store-0.1.0.zip")).extractall(own_home)
    return own_home


def test_a_run_takes_everything_from_the_store(home: Path) -> None:
    entry = override(load_entry("lexical"), ["lexical.max_features=40", "lexical.folds=2"])
    battles = battles_input(home / "battles.csv")
    requests = chain(entry, battles, "cpu", home / "store", held=Held(), selection=Selection())
    notes: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    run_chain(requests, entry, home / "store", say=notes.append, track=False)
    assert len(notes) == 2 and all("in the store" in note for note in notes)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_its_members_are_listed_and_can_be_blended(home: Path) -> None:
    rows = {row.member: row.log_loss for row in leaderboard(home / "store")}
    assert rows["lexical@ab"] == pytest.approx(1.0383, abs=1e-4) and rows.keys() == {"lexical@ab", "theirs"}
    members = align(score_tables(home / "store"), target="cpu", battles=home / "battles.csv")
    assert set(members.names) == {"lexical@ab", "theirs"} and len(members.y) == 60


def test_its_plan_predicts(home: Path, tmp_path: Path) -> None:
    """The member's stage runs for real, by the checkpoint in the store."""
    output = tmp_path / "out.csv"
    done = predict(home / "plan.json", home / "battles.csv", output, started_at=time.monotonic(), store=home / "store")
    assert done.warnings == () and done.used == ("lexical@ab",)
    assert len(read_submission(output)) == 60
