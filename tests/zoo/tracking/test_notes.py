"""What people write in MLflow's UI outlives the database: notes, tags and aliases are files of the home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.models import kept_aliases
from zoo.tracking.promote import members_with_alias
from zoo.tracking.sync import sync


def run_of(name: str) -> Any:
    (run,) = [run for run in all_runs("stage") if run.info.run_name == name]
    return run


def write(name: str, **tags: str) -> None:
    for key, value in tags.items():
        tracking_client.connect().set_tag(run_of(name).info.run_id, key.replace("__", "."), value)


def test_notes_tags_and_aliases_outlive_the_database(home: Path) -> None:
    assert log(add_member(home, "first")) and log(add_member(home, "other"))
    write("first", mlflow__note__content="sent on Monday, board 0.98", board="0.9812")
    client = tracking_client.connect()
    client.set_registered_model_alias("other", "submitted", "1")
    assert sync(home / "store") == 0
    kept = json.loads((home / "notes.json").read_text())
    assert list(kept.values()) == [{"mlflow.note.content": "sent on Monday, board 0.98", "board": "0.9812"}]
    assert kept_aliases()["other"]["submitted"]["checkpoint"]

    (home / "mlflow.db").rename(home / "old.db")
    assert sync(home / "store") == 2
    run = run_of("first")
    assert (run.data.tags["mlflow.note.content"], run.data.tags["board"]) == ("sent on Monday, board 0.98", "0.9812")
    assert "board" not in run_of("other").data.tags
    assert set(members_with_alias("submitted")) == {"other"}
    assert sync(home / "store") == 0 and json.loads((home / "notes.json").read_text()) == kept


def test_what_people_take_back_is_not_given_back(home: Path) -> None:
    assert log(add_member(home, "first"))
    write("first", board="0.9")
    assert sync(home / "store") == 0 and (home / "notes.json").exists()
    tracking_client.connect().delete_tag(run_of("first").info.run_id, "board")
    assert sync(home / "store") == 0
    assert json.loads((home / "notes.json").read_text()) == {}


def test_notes_of_runs_that_the_database_lacks_stay(home: Path) -> None:
    (home / "notes.json").write_text(json.dumps({"0123456789abcdef/": {"board": "0.9"}}))
    assert log(add_member(home, "first")) and sync(home / "store") == 0
    write("first", board="0.8")
    assert sync(home / "store") == 0
    assert len(json.loads((home / "notes.json").read_text())) == 2


def test_a_broken_file_of_notes_is_kept_aside(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "notes.json").write_text("{")
    assert log(add_member(home, "first"))
    (aside,) = home.glob("notes.json.broken-*")
    assert aside.read_text() == "{" and "it is kept as" in caplog.text
