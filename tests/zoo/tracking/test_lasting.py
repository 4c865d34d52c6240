"""A home lasts: its database is whole or made again from the store, it is moved and copied, a killed logger is made up for.

Processes are killed when something has happened, never after some time.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.logged import add_member, log
from zoo.errors import ZooError
from zoo.store import read_manifest
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.experiments import WEIGHTS, experiment_of
from zoo.tracking.promote import members_with_alias, promote
from zoo.tracking.sync import log_build, sync

MAKE = "from zoo.tracking.client.connection import ensure_store; ensure_store()"


def runs(status: str = "FINISHED") -> dict[str, Any]:
    """All our runs but those of entries, by name; none of another status than `status`."""
    client = tracking_client.connect()
    ids = tracking_client.experiments_of_ours(client)
    found = client.search_runs(ids, max_results=1000) if ids else []
    assert {run.info.status for run in found} <= {status}
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found), "nothing is doubled"
    return named


def zoo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ZOO_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "zoo", *arguments], env=environment, capture_output=True, text=True, timeout=170
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def kill_when(event: Callable[[], bool], program: str, home: Path) -> None:
    """Run a program on a home, and SIGKILL it as soon as something is so; it must be so before the program ends."""
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "ZOO_HOME": str(home)})
    while not event():
        assert process.poll() is None, "the program ended before"
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def tables_of(path: Path) -> set[str]:
    """The tables of a database that another process is making; none where it cannot be read just now."""
    if not path.exists():
        return set()
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return set()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_database_is_whole_or_absent_whenever_its_maker_is_killed(own_home: Path) -> None:
    add_member(own_home, "first")
    making = own_home / ".mlflow.db.making"
    kill_when(making.exists, MAKE, own_home)
    kill_when(lambda: "alembic_version" in tables_of(making), MAKE, own_home)
    kill_when(lambda: "model_versions" in tables_of(making), MAKE, own_home)
    assert not (own_home / "mlflow.db").exists()
    half = own_home.parent / "half.db"
    shutil.copy(making, half)

    done = zoo(own_home, "sync")
    assert (done.returncode, done.stdout) == (0, "1 mirrored to MLflow\n"), done.stderr
    assert set(runs()) == {"first"} and not making.exists()

    # What code that made the database in place has left of it.
    shutil.copy(half, own_home / "mlflow.db")
    second = add_member(own_home, "second")
    assert log(second)
    assert set(runs()) == {"first", "second"}, "the next command logs all"
    (aside,) = own_home.glob("mlflow.db.broken-*")
    assert aside.read_bytes() == half.read_bytes(), "kept aside as it was"


@pytest.mark.services
def test_a_damaged_database_is_made_again_with_builds_and_aliases(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = add_member(home, "first"), add_member(home, "other")
    assert log(first) and log(second)
    digest = read_manifest(first).request.inputs["battles"].fingerprint
    assert log_build({"dataset_digest": digest}, {"val/log_loss": 1.0}, {"first": read_manifest(first).fingerprint})
    promote("other")
    promote("first", alias="submitted")
    before = {name: run.info.end_time for name, run in runs().items()}
    damaged = home / "mlflow.db"
    damaged.write_bytes(damaged.read_bytes()[:100] + os.urandom(50_000))

    assert log(add_member(home, "third"))
    after = {name: run.info.end_time for name, run in runs().items()}
    assert after.pop("third") and after == before
    assert set(members_with_alias("champion")) == {"first", "other"}
    assert set(members_with_alias("submitted")) == {"first"}
    assert len(list(home.glob("mlflow.db.broken-*"))) == 1 and "kept as mlflow.db.broken-" in caplog.text
    assert sync(home / "store") == 0


def test_a_used_database_of_another_mlflow_stays_where_it_is(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = add_member(home, "first")
    assert log(first)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fffffffffff1'")
    content = (home / "mlflow.db").read_bytes()
    with pytest.raises(ZooError, match="fffffffffff1"):
        sync(home / "store")
    assert (home / "mlflow.db").read_bytes() == content and not list(home.glob("*.broken-*"))


def test_a_late_build_takes_no_alias_from_a_later_choice(home: Path) -> None:
    """A build that is logged after people have promoted another checkpoint keeps its place in time."""
    first = add_member(home, "first")
    assert log(first)
    digest = read_manifest(first).request.inputs["battles"].fingerprint
    assert log_build({"dataset_digest": digest}, {}, {"first": read_manifest(first).fingerprint})
    client = tracking_client.connect()
    model = client.create_model_version("first", (home / "artifacts").as_uri(), tags={"zoo.checkpoint": "later"})
    assert promote("first", version=str(model.version)) == "2"
    (home / "mlflow.db").rename(home / "old.db")
    assert sync(home / "store") == 2
    with pytest.raises(ZooError, match="no scored entry has the alias"):
        members_with_alias("champion")


@pytest.mark.parametrize("names", [("old", "new"), ("a b%c#ü", "new"), ("new", "a b%c#ü")])
def test_a_moved_home_is_used_where_it_lies_now(
    names: tuple[str, str], fresh_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / names[0] / "home", tmp_path / names[1] / "home"
    old.mkdir(parents=True)
    shutil.copy(fresh_database, old)
    monkeypatch.setenv("ZOO_HOME", str(old))
    assert log(add_member(old, "first"))
    new.parent.mkdir()
    old.rename(new)
    monkeypatch.setenv("ZOO_HOME", str(new))
    second = add_member(new, "second")
    assert log(second)

    assert not old.exists(), "nothing is written outside the home"
    found, client = runs(), tracking_client.connect()
    assert set(found) == {"first", "second"}
    for name, run in found.items():
        assert run.info.artifact_uri.startswith((new / "artifacts").as_uri() + "/")
        target = tmp_path / f"downloaded-{name}"
        target.mkdir()
        table = Path(client.download_artifacts(run.info.run_id, "scores/scores.parquet", str(target)))
        assert table.read_bytes() in {path.read_bytes() for path in new.glob("store/*/*/scores.parquet")}
    with closing(sqlite3.connect(new / "mlflow.db")) as database:
        assert old.as_uri() not in "\n".join(database.iterdump())
    assert sync(new / "store") == 0


def test_a_copied_home_and_the_first_one_keep_to_themselves(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log(add_member(home, "first"))
    copy = tmp_path / "copy" / "home"
    shutil.copytree(home, copy)
    before = sorted((path, path.stat().st_mtime_ns) for path in home.rglob("*"))
    monkeypatch.setenv("ZOO_HOME", str(copy))
    assert log(add_member(copy, "second"))
    assert all(str(copy) in run.info.artifact_uri for run in runs().values())
    assert sorted((path, path.stat().st_mtime_ns) for path in home.rglob("*")) == before
    monkeypatch.setenv("ZOO_HOME", str(home))
    assert set(runs()) == {"first"} and str(home) in runs()["first"].info.artifact_uri


def test_a_home_by_another_name_stays_as_it_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert log(add_member(home, "first"))
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "link"))
    assert runs()["first"].info.artifact_uri.startswith((home / "artifacts").as_uri())


@pytest.mark.services
@pytest.mark.parametrize("what", ["stage", "build"])
def test_the_next_command_ends_what_a_killed_logger_left(what: str, home: Path) -> None:
    """Killed when all is written but the run's end."""
    first = add_member(home, "first")
    digest = read_manifest(first).request.inputs["battles"].fingerprint
    call = f"log_build({{'dataset_digest': '{digest}'}}, {{'x': 1.0}}, {{}})" if what == "build" else "log()"
    program = f"""
import os, pathlib
from mlflow.tracking import MlflowClient
from zoo.store import read_manifest
from zoo.tracking.sync import log_build, log_stage
log = lambda: log_stage(read_manifest(pathlib.Path({str(first)!r})), pathlib.Path({str(first)!r}))
{"log()" if what == "build" else ""}
MlflowClient.set_terminated = lambda *_, **__: os.kill(os.getpid(), 9)
{call}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=170)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone() == (1,)
    assert log(add_member(home, "second"))
    assert len(runs()) == (3 if what == "build" else 2)


def test_runs_that_nothing_can_fill_are_ended(home: Path) -> None:
    client = tracking_client.connect()
    experiment = experiment_of(client, WEIGHTS)
    client.create_run(experiment, tags={"zoo.kind": "build"}, run_name="gone")
    assert sync(home / "store") == 0
    assert set(runs("KILLED")) == {"gone"}
