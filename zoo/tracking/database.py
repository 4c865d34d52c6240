"""The SQLite database of a home: made whole or not at all, and true to where the home lies.

MLflow makes its tables in dozens of steps, over seconds, and a process that is killed meanwhile leaves a file that no later one
can use; and it notes absolute places of runs' files, which a home that is moved or copied takes with it. No MLflow here: what
makes the tables, and which there should be, is handed in.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from zoo.settings import home
from zoo.store import locked

logger = logging.getLogger("zoo")
LOCKED_SECONDS = 4.0  # how long another program's lock is waited for: tracking never holds a stage up
SIDE_FILES = ("-journal", "-wal", "-shm")  # SQLite's own, beside a database; they belong to it alone


@dataclass(frozen=True)
class Schema:
    """What a whole database has: all these tables, at this revision."""

    tables: frozenset[str]
    revision: str


def ensure_database(path: Path, schema: Schema, *, make: Callable[[Path], None], made: Callable[[], None]) -> None:
    """Leave a whole database at `path`: as it is, or made beside and renamed.

    A broken one is kept aside under a dated name. `make(file)` makes the tables in a new file, or brings those of an older
    MLflow up to `schema`. `made()` is called just before a new database takes its place. sqlite3.OperationalError where another
    program holds the database locked.
    """
    if is_whole(path, schema):
        return
    with locked(home(), "database"):
        if is_whole(path, schema):  # another process was first
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.making")
        _remove(temporary)  # what a killed process left
        used = _has_runs(path)
        if used:  # of an older MLflow: nothing in it may be lost, and its upgrade is whole or not at all
            with closing(_open(path)) as source, closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
        make(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if not used:
            made()
            _keep_aside(path)
        temporary.replace(path)
        _sync_folder(path.parent)


def is_whole(path: Path, schema: Schema) -> bool:
    """Whether a database has its whole schema and no damage.

    Also where MLflow will say why it cannot be used.
    """
    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        with closing(_open(path)) as database:
            # As a writer, so that somebody who holds the database locked is found out here, in seconds.
            database.execute("BEGIN IMMEDIATE")
            names = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not schema.tables | {"alembic_version"} <= names:
                return False
            if database.execute("SELECT version_num FROM alembic_version").fetchall() != [(schema.revision,)]:
                return False
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        return True
    except sqlite3.DatabaseError:  # no database, or damaged where everything begins
        return False
    return _undamaged(path, path.stat().st_ino)


def follow_home(path: Path, root: str) -> None:
    """Point a home's database to files under `root` (a `file:` URI), where it named another.

    One transaction over every text that begins with the old place, whatever table it is in. A place that is the same folder by
    another name (a link, a mount) is left.
    """
    with suppress(sqlite3.OperationalError), closing(_open(path)) as database:  # MLflow says what is wrong with it
        database.execute("BEGIN IMMEDIATE")
        for old in sorted(_roots(database) - {root}):
            if _same_folder(old, root):
                continue
            for table, column in _texts(database):
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) WHERE substr("{column}", 1, ?) = ?',
                    (f"{root}/", len(old) + 2, len(old) + 1, f"{old}/"),
                )
            logger.info("%s: this home was moved here; its runs' files are noted where they lie now", path)
        database.execute("COMMIT")


def _roots(database: sqlite3.Connection) -> set[str]:
    """Where the files of our experiments, and of MLflow's default one, are noted to be.

    Each has a folder of its own.
    """
    found = set()
    for number, location in database.execute("SELECT experiment_id, artifact_location FROM experiments"):
        root, _, folder = str(location or "").rpartition("/")
        is_ours = folder.startswith("preference-") if number else folder == "0"
        if is_ours and root.startswith("file:") and root.endswith("/artifacts"):
            found.add(root)
    return found


def _texts(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Tables and their columns of text."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    for (table,) in tables:
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                yield str(table), str(column)


def _same_folder(one: str, other: str) -> bool:
    try:
        return Path(unquote(urlsplit(one).path)).samefile(unquote(urlsplit(other).path))
    except OSError:
        return False


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a database that is there.

    It is opened with its journal: what a killed writer left is rolled back.
    """
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=LOCKED_SECONDS, isolation_level=None)


@functools.cache
def _undamaged(path: Path, inode: int) -> bool:
    """Whether SQLite finds no damage; asked once a process, since it reads the whole file."""
    try:
        with closing(_open(path)) as database:
            return [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")] == ["ok"]
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False


def _has_runs(path: Path) -> bool:
    """Whether an undamaged database holds runs: one that was killed while it was made cannot."""
    if not path.exists() or not _undamaged(path, path.stat().st_ino):
        return False
    try:
        with closing(_open(path)) as database:
            there = database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'runs'").fetchone()
            return bool(there) and database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:  # damaged since
        return False


def _keep_aside(path: Path) -> None:
    """Rename a broken database; its journal first, which would spoil the next one of its name."""
    if not path.exists() or path.stat().st_size == 0:
        return
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.broken-{stamp}")
    for ending in (*SIDE_FILES, ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    logger.warning("%s was broken: it is kept as %s, and made again from the store", path, aside.name)


def _remove(path: Path) -> None:
    for ending in (*SIDE_FILES, ""):
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
