"""Tracking stores that cannot be used: one clear line, no stage lost, and never a credential in it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.cli import main as ensemble_main
from tests.helpers.command_lines import run_command
from zoo.cli.main import main as zoo_main
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores
from zoo.store import read_manifest
from zoo.tracking.home import public, public_data
from zoo.tracking.promote import members_with_alias, promote
from zoo.tracking.sync import log_stage, sync
from zoo.tracking.ui import serve

SECRET = "hunter2-and-more"


@pytest.fixture
def member(tmp_path: Path, home: Path) -> Path:
    """The artifact of an imported member in the test's home, which has a database that MLflow has made."""
    battles = tmp_path / "battles.csv"
    write_sample(battles, 30, seed=1)
    ids = read_battles(battles).frame["id"].tolist()
    (tmp_path / "m.csv").write_text("\n".join(["id,p_a,p_b,p_tie", *(f"{i},0.3,0.3,0.4" for i in ids)]))
    store = home / "store"
    return import_scores(
        "m", tmp_path / "m.csv", battles, target="t4x2", load_seconds=1.0, seconds_per_row=0.1, store=store
    ).path


def refused(home: Path, expected: str, caplog: pytest.LogCaptureFixture, member: Path) -> None:
    """Logging a stage warns and keeps it; sync, promote and the aliases say the same in one line."""
    assert not log_stage(read_manifest(member), member)
    said = [record.getMessage() for record in caplog.records if record.name == "zoo"]
    assert len(said) == 1
    for question in (lambda: sync(home / "store"), lambda: promote("m"), lambda: members_with_alias("champion")):
        with pytest.raises(ZooError) as caught:
            question()
        said.append(str(caught.value))
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
    for line in said:
        assert expected in line and "\n" not in line and SECRET not in line


def test_a_locked_database(
    member: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{own_home / 'mlflow.db'}?timeout=0.2"  # SQLite's own wait is 5 s a statement
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with sqlite3.connect(own_home / "mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused(own_home, "database is locked", caplog, member)
        with pytest.raises(ZooError, match=r"database is locked.*run `zoo ui` again"):
            serve(5199, say=print, browse=False)
    assert sync(own_home / "store") == 1, "when the lock is gone nothing is missing"


def test_a_read_only_database(
    member: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = own_home / "mlflow.db"
    monkeypatch.chdir(own_home)  # MLflow takes `file:...` for a folder too, and makes it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///file:{path}?mode=ro&uri=true")
    assert not log_stage(read_manifest(member), member)
    assert "readonly database" in caplog.text and "zoo sync" in caplog.text
    with pytest.raises(ZooError, match="readonly database"):
        sync(own_home / "store")


def test_a_database_of_a_newer_mlflow(
    member: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(own_home / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'fffffffffff1'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own_home / 'mlflow.db'}?timeout=5")  # no engine of it is cached
    refused(own_home, "fffffffffff1", caplog, member)


@pytest.mark.parametrize(
    "command", [("zoo", "leaderboard"), ("zoo", "list"), ("zoo", "sync"), ("ensemble", "build", "--target", "t4x2")]
)
def test_an_artifact_of_a_newer_version_is_told_and_left_out(
    member: Path, own_home: Path, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = member / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 99, "something": "new"}))
    program, *arguments = command
    main = {"zoo": zoo_main, "ensemble": ensemble_main}[program]
    done = run_command(main, program, *arguments, home=own_home, folder=own_home)
    assert f"left out: {manifest}: schema version 99 is newer than 1; upgrade this package" in caplog.text
    assert done.returncode == (2 if command[1] == "build" else 0) and "Traceback" not in done.stderr


def test_a_server_that_is_down_and_needs_a_password(
    member: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    refused(own_home, "http://***@127.0.0.1:9", caplog, member)


@pytest.mark.parametrize("arguments", [("sync",), ("promote", "m"), ("--debug", "promote", "m"), ("ui",)])
def test_no_command_prints_a_credential(member: Path, own_home: Path, arguments: tuple[str, ...]) -> None:
    environment = {
        **os.environ,
        "ZOO_HOME": str(own_home),
        "MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9",
        "BROWSER": "true",
        "DISPLAY": "",
    }
    command = [sys.executable, "-m", "zoo", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert SECRET not in done.stdout + done.stderr and "***@127.0.0.1" in done.stdout + done.stderr


def test_secrets_and_paths_of_the_user_do_not_become_public(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "runs"))
    planted = {
        "base": {"hub_id": "/home/somebody/models/private-7b", "packages": [f"w @ https://me:{SECRET}@host/w.whl"]},
        "note": f"fetched with {SECRET} into {tmp_path / 'runs'}/store",
        "file": "file:///home/somebody/a b.csv",
        "windows": "C:\\Users\\somebody\\weights",
    }
    text = str(public_data(planted))
    assert SECRET not in text and "somebody" not in text and str(tmp_path) not in text
    assert "private-7b" in text and "a b.csv" in text and "weights" in text
    for kept in ("ORG/MODEL", "A / B / tie", "</s>\n<|user|>", "train.learning_rate=3e-4", "and/or"):
        assert public(kept) == kept
