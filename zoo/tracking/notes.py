"""What people write in MLflow's UI, kept in the home: notes and tags of runs, aliases.

A database that is made again has no other source of them. They are read whenever something is logged, and by `zoo sync` and
`zoo ui`: what was written since is in the database alone.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.settings import home
from zoo.store import write_atomic
from zoo.tracking.client.runs import all_runs_of_ours
from zoo.tracking.describe import NOTE, is_our_note
from zoo.tracking.home import is_marked, is_own_database, mark
from zoo.tracking.kept import Notes, read_kept, set_file_aside
from zoo.tracking.models import CANDIDATE, keep_alias, kept_aliases

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

OURS = ("zoo.", "mlflow.", "package.", "member.")  # what tags begin with that this project or MLflow writes
RESTORED = "notes"  # the mark of a database that has what the home kept


def keep_notes(client: MlflowClient) -> None:
    """Keep what people wrote in the home's own database.

    It is given back where the database was made again. Hold the lock.
    """
    if not is_own_database():
        return
    kept = _kept()
    runs = {key: run for run in all_runs_of_ours(client) if (key := _key(run))}
    if not is_marked(RESTORED):
        for key, tags in kept.items():
            for name, value in tags.items() if key in runs else ():
                client.set_tag(runs[key].info.run_id, name, value)
        mark(RESTORED)
        if kept:
            return
    written = {key: tags for key, run in runs.items() if (tags := _written(run.data.tags))}
    found = {key: tags for key, tags in kept.items() if key not in runs} | written
    if found != kept:
        write_atomic(_file(), json.dumps(found, indent=1, sort_keys=True))
    _keep_aliases(client)


def _keep_aliases(client: MlflowClient) -> None:
    """Aliases that were given in the UI: those that the home does not have for that version."""
    known, now = kept_aliases(), datetime.datetime.now(datetime.UTC).isoformat()
    for model in client.search_registered_models():
        for alias, number in model.aliases.items():
            if alias == CANDIDATE:
                continue
            checkpoint = client.get_model_version(model.name, str(number)).tags.get("zoo.checkpoint", "")
            if checkpoint and known.get(model.name, {}).get(alias, {}).get("checkpoint") != checkpoint:
                keep_alias(model.name, alias, checkpoint, now)


def _written(tags: dict[str, str]) -> dict[str, str]:
    """What people wrote on a run: a description that is not this project's, and tags of their own."""
    return {
        name: value
        for name, value in tags.items()
        if (name == NOTE and not is_our_note(tags)) or (name != NOTE and not name.startswith(OURS))
    }


def _key(run: Any) -> str:
    """What a run is found by in any database: fingerprint and variant."""
    fingerprint, variant = (run.data.tags.get(f"zoo.{name}", "") for name in ("fingerprint", "variant"))
    return f"{fingerprint}/{variant}" if fingerprint else ""


def _file() -> Path:
    return home() / "notes.json"


def _kept() -> dict[str, dict[str, str]]:
    if not _file().exists():
        return {}
    kept: dict[str, dict[str, str]] | None = read_kept(_file(), Notes)
    if kept is None:
        set_file_aside(_file())
    return kept or {}
