"""What must hold of a home whatever was killed in it: whole artifacts, every row once, a database like the store."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pandas as pd

from tests.soak.ledger import Counts
from tests.soak.processes import Ended, environment, run
from zoo.store import MANIFEST, file_sha256


def check_end(ended: Ended, counts: Counts, *, codes: Iterable[int] = (0,)) -> None:
    """A command that was not killed ends by itself, in a line and not a traceback, and with a code that it may have."""
    if ended.hung:
        counts.add("hangs", f"still there after {ended.seconds:.0f} s")
    if "Traceback (most recent call last)" in ended.errors + ended.output:
        counts.add("tracebacks", ended.errors[-400:])
    elif not ended.killed and not ended.hung and ended.code not in codes:
        counts.add("invalid_files", f"exit code {ended.code}: {ended.errors[-400:]}")


def check_store(home: Path, counts: Counts, *, finished: bool = True) -> None:
    """Every folder with a final name is whole by its manifest; where all is finished nothing lies in `.partial`."""
    for folder in sorted(path for path in (home / "store").glob("*") if not path.name.startswith(".")):
        fault = _fault(folder)
        if fault:
            counts.add("half_artifacts", f"{folder.name}: {fault}")
    partial = home / "store" / ".partial"
    if finished and partial.exists():
        for left in sorted(partial.iterdir()):
            counts.add("half_artifacts", f"left in .partial: {left.name}")


def _fault(folder: Path) -> str:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"no manifest ({type(error).__name__})"
    for name, record in files.items():
        if not (folder / name).exists() or file_sha256(folder / name) != record["sha256"]:
            return f"{name} is not what the manifest says"
    return ""


def check_rows(home: Path, expected: dict[str, set[str]], counts: Counts) -> None:
    """Every score table of a member holds the ids that it should, each once. `expected`: by the start of a folder's name."""
    for start, ids in expected.items():
        tables = sorted((home / "store").glob(f"{start}*/*/scores.parquet"))
        if not tables:
            counts.add("rows_lost", f"no table of {start}", len(ids))
        for table in tables:
            seen = Counter(pd.read_parquet(table)["id"])
            lost, doubled = len(ids - seen.keys()), sum(seen.values()) - len(seen)
            if lost:
                counts.add("rows_lost", f"{table.parent.parent.name}: {lost}", lost)
            if doubled or seen.keys() - ids:
                counts.add("rows_doubled", f"{table.parent.parent.name}: {doubled}, strangers {len(seen.keys() - ids)}")


def check_tracking(home: Path, folder: Path, counts: Counts) -> None:
    """After one more command the database is sound, has every artifact once, and no run is left RUNNING."""
    check_end(run(["zoo", "sync"], folder, environment(home)), counts)
    try:
        with closing(sqlite3.connect(f"file:{home / 'mlflow.db'}?mode=ro", uri=True)) as database:
            (state,) = database.execute("PRAGMA integrity_check").fetchone()
            statuses = dict(database.execute("SELECT status, COUNT(*) FROM runs GROUP BY status"))
            tags = database.execute(
                "SELECT f.value, COALESCE(v.value, '') FROM tags f LEFT JOIN tags v ON v.run_uuid = f.run_uuid AND "
                "v.key = 'zoo.variant' JOIN runs r ON r.run_uuid = f.run_uuid WHERE f.key = 'zoo.fingerprint' "
                "AND r.lifecycle_stage = 'active'"
            ).fetchall()
    except sqlite3.Error as error:
        counts.add("tracking_broken", f"mlflow.db: {error}")
        return
    if state != "ok" or set(statuses) - {"FINISHED"}:
        counts.add("tracking_broken", f"integrity {state}, runs {statuses}")
    doubled = [key for key, times in Counter(tags).items() if times > 1]
    logged = {fingerprint for fingerprint, _ in tags}
    lacking = [p.name for p in (home / "store").glob("*-*") if p.name.rpartition("-")[2] not in logged]
    if doubled or lacking:
        counts.add("tracking_broken", f"logged twice: {doubled}; not logged: {lacking}")
