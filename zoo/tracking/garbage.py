"""Garbage of the home's own tracking database: deleted runs, and files of no run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.settings import home
from zoo.store import Garbage, collect, disk_bytes, locked
from zoo.tracking.client.connection import connect
from zoo.tracking.client.deleted import deleted_runs, purge, purge_deleted_models
from zoo.tracking.client.runs import run_ids
from zoo.tracking.home import artifact_root, is_own_database

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient


def tracking_garbage(*, days: float) -> list[Garbage]:
    """Files of runs that were deleted, or that the database does not have.

    Deleted `days` ago or longer; the others are of a database that was made again. Nothing where runs are kept
    elsewhere. Raises what MLflow raises.
    """
    if not is_own_database() or not (home() / "mlflow.db").exists():
        return []
    with locked(home(), "tracking"):
        return _found(connect(), days)


def _found(client: MlflowClient, days: float) -> list[Garbage]:
    deleted, known = set(deleted_runs(client, _milliseconds(days))), run_ids(client)
    found = []
    for folder in sorted(path for path in artifact_root().glob("[!.]*/*") if path.is_dir() and path.name != "models"):
        changed = max((path.stat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)
        if folder.name in deleted:
            found.append(_item(folder, "files of a deleted run"))
        elif folder.name not in known and time.time() - changed >= days * 86400:
            found.append(_item(folder, "files of a run that the database does not have"))
    return found + [_item(artifact_root() / "deleted" / run, "a deleted run") for run in sorted(deleted - _names(found))]


def collect_tracking(items: Sequence[Garbage], *, days: float) -> list[Garbage]:
    """Remove deleted runs from the database for good, then their files; what was removed.

    What was restored in the UI or removed by another command meanwhile is left alone.
    """
    with locked(home(), "tracking"):
        client = connect()
        deleted, still = set(deleted_runs(client, _milliseconds(days))), {item.path for item in _found(client, days)}
        removed = [item for item in items if item.path in still]
        for item in removed:
            if item.path.name in deleted:
                purge(client, item.path.name)
            collect(item, home())
        purge_deleted_models(client, _milliseconds(days))
    return removed


def _names(items: Sequence[Garbage]) -> set[str]:
    return {item.path.name for item in items}


def _item(path: Path, why: str) -> Garbage:
    return Garbage(path, disk_bytes(path), why)


def _milliseconds(days: float) -> int:
    return round(days * 86_400_000)
