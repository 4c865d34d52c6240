"""A database takes its place whole: what is broken goes aside, what holds runs is brought up on a copy, or stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from zoo.tracking.database import Schema, ensure_database, follow_home, is_whole

SCHEMA = Schema(frozenset({"runs", "experiments"}), "new")
TABLES = (
    "CREATE TABLE IF NOT EXISTS runs (artifact_uri VARCHAR(200))",
    "CREATE TABLE IF NOT EXISTS experiments (experiment_id INTEGER, name VARCHAR(256), artifact_location VARCHAR(256))",
    "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32))",
    "DELETE FROM alembic_version",
    "INSERT INTO alembic_version VALUES ('new')",
)


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def read(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def make(path: Path) -> None:
    write(path, *TABLES)


def fail(path: Path) -> None:
    write(path, TABLES[0], "INSERT INTO runs VALUES ('half an upgrade')")
    raise OSError("no space left")


def ensure(path: Path, maker: Callable[[Path], None] = make) -> list[str]:
    """Ensure a database; what was called when a new one took its place."""
    made: list[str] = []
    ensure_database(path, SCHEMA, make=maker, made=lambda: made.append("made"))
    return made


@pytest.fixture
def path(own_home: Path) -> Path:
    own_home.mkdir()
    return own_home / "mlflow.db"


def test_an_absent_or_empty_one_is_made(path: Path) -> None:
    assert ensure(path) == ["made"] and is_whole(path, SCHEMA)
    assert ensure(path) == []
    path.write_bytes(b"")
    assert ensure(path) == ["made"] and is_whole(path, SCHEMA)
    assert {found.name for found in path.parent.iterdir()} == {"mlflow.db", ".locks"}


@pytest.mark.parametrize("statements", [TABLES[:1], TABLES[:2], TABLES[:4], TABLES[2:]])
def test_a_half_made_one_goes_aside(path: Path, statements: tuple[str, ...]) -> None:
    write(path, *statements)
    Path(f"{path}-journal").write_bytes(b"")
    content = path.read_bytes()
    assert ensure(path) == ["made"] and is_whole(path, SCHEMA)
    (aside,) = (found for found in path.parent.glob("mlflow.db.broken-*") if not found.name.endswith("-journal"))
    assert aside.read_bytes() == content and not Path(f"{path}-journal").exists()


def test_what_is_no_database_goes_aside(path: Path) -> None:
    path.write_text("no database" * 1000)
    assert ensure(path) == ["made"]
    assert len(list(path.parent.glob("mlflow.db.broken-*"))) == 1


def test_an_older_one_with_runs_is_brought_up_with_them(path: Path) -> None:
    write(path, TABLES[0], TABLES[2], "INSERT INTO alembic_version VALUES ('old')", "INSERT INTO runs VALUES ('mine')")
    assert ensure(path) == [], "what was noted of it goes on counting"
    assert is_whole(path, SCHEMA) and read(path, "SELECT * FROM runs") == [("mine",)]
    assert not list(path.parent.glob("mlflow.db.broken-*"))


def test_one_with_runs_stays_as_it_is_where_it_cannot_be_brought_up(path: Path) -> None:
    write(path, TABLES[0], TABLES[2], "INSERT INTO alembic_version VALUES ('unknown')", "INSERT INTO runs VALUES ('mine')")
    content = path.read_bytes()
    with pytest.raises(OSError, match="no space left"):
        ensure(path, fail)
    assert path.read_bytes() == content


def test_only_what_lies_in_the_old_home_is_noted_anew(path: Path) -> None:
    make(path)
    kept = "file:///old/artifacts-of-mine/x", "file:///elsewhere/preference-a", "/old/artifacts/plain"
    moved = "file:///old/artifacts/preference-a/1/artifacts", "file:///older/artifacts/preference-b"
    places = {
        "Default": "file:///old/artifacts/0",
        "preference-a": "file:///old/artifacts/preference-a",
        "preference-b": "file:///older/artifacts/preference-b",
        "mine": "file:///data/artifacts/3",
    }
    for number, (name, location) in enumerate(places.items()):
        write(path, f"INSERT INTO experiments VALUES ({number}, '{name}', '{location}')")
    write(path, *(f"INSERT INTO runs VALUES ('{uri}')" for uri in kept + moved))
    for _ in range(2):
        follow_home(path, "file:///new/artifacts")
        assert [row[0] for row in read(path, "SELECT artifact_location FROM experiments")] == [
            *("file:///new/artifacts/0", "file:///new/artifacts/preference-a", "file:///new/artifacts/preference-b"),
            "file:///data/artifacts/3",
        ]
        expected = {*kept, "file:///new/artifacts/preference-a/1/artifacts", "file:///new/artifacts/preference-b"}
        assert {row[0] for row in read(path, "SELECT artifact_uri FROM runs")} == expected


def test_a_home_moved_into_its_old_folder_is_followed_once(path: Path) -> None:
    make(path)
    write(path, "INSERT INTO experiments VALUES (0, 'Default', 'file:///a/artifacts/0')")
    for _ in range(3):
        follow_home(path, "file:///a/artifacts/b/artifacts")
        assert read(path, "SELECT artifact_location FROM experiments") == [("file:///a/artifacts/b/artifacts/0",)]


def test_a_locked_one_is_told_and_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    monkeypatch.setattr("zoo.tracking.database.LOCKED_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            ensure(path)
