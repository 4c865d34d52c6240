"""Removed artifacts: their runs, models and versions go from the tracking store too.

What is to go is first a file of the home, so that a tracking store that is down loses no removal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.scores.named import cards_of
from zoo.settings import home, store_folder
from zoo.store import MANIFEST, artifact_folders, fingerprint_of, locked, write_atomic
from zoo.tracking.client.connection import connect, experiments_of_ours
from zoo.tracking.client.models import registered_version
from zoo.tracking.home import aliases_file, database, marker_folder
from zoo.tracking.kept import KeptRemoval, read_kept, set_file_aside
from zoo.tracking.models import kept_aliases, members_of

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient


def removed_folder() -> Path:
    """What was removed from the store and is still in the tracking store, a file each."""
    return home() / "removed"


def note_removal(folder: Path) -> None:
    """Note an artifact that is about to be removed, with the members whose tables it holds."""
    cards = [[card.entry, card.checkpoint, card.member] for card in cards_of(folder)]
    removed_folder().mkdir(parents=True, exist_ok=True)
    record = {"artifact": folder.name, "fingerprint": fingerprint_of(folder), "cards": cards}
    write_atomic(removed_folder() / f"{folder.name}.json", json.dumps(record))


def unnote_removal(folder: Path) -> None:
    """Forget the note of an artifact that was not removed after all."""
    (removed_folder() / f"{folder.name}.json").unlink(missing_ok=True)


def is_removal_owed() -> bool:
    """Whether the tracking store still holds something that was removed."""
    return any(removed_folder().glob("*.json"))


def forget_removed() -> int:
    """Take from the tracking store what was removed from the store; how many artifacts.

    Raises what MLflow raises.

    Runs are deleted as the UI deletes them: `zoo gc` takes their files too.
    """
    noted = sorted(removed_folder().glob("*.json"))
    if not noted:
        return 0
    path = database()
    if path is not None and not path.exists():  # nothing was ever logged
        for note in noted:
            note.unlink()
        return len(noted)
    with locked(home(), "tracking"):
        client = connect()
        for note in noted:
            record = read_kept(note, KeptRemoval)
            if record is None:
                set_file_aside(note, f"delete the runs of {note.stem} in MLflow's UI")
                continue
            if not (store_folder() / record["artifact"] / MANIFEST).exists():  # else it was made again since
                _forget(client, record)
                (marker_folder() / record["artifact"]).unlink(missing_ok=True)
            note.unlink(missing_ok=True)
    return len(noted)


def _forget(client: MlflowClient, record: dict[str, Any]) -> None:
    folders = artifact_folders(store_folder())
    left = {(card.checkpoint, card.member) for folder in folders for card in cards_of(folder)}
    gone = {str(record["fingerprint"])}  # whose logged models go
    for entry, checkpoint, member in record["cards"]:
        if (checkpoint, member) not in left and _forget_member(client, entry, checkpoint, member):
            gone.add(checkpoint)
    gone -= {fingerprint_of(folder) for folder in folders}  # a checkpoint in the store stays, scored or not
    experiments = experiments_of_ours(client)
    if not experiments:
        return
    for run in client.search_runs(experiments, filter_string=_of(record["fingerprint"]), max_results=1000):
        client.delete_run(run.info.run_id)
    for fingerprint in gone:
        for model in client.search_logged_models(experiments, filter_string=_of(fingerprint)):
            client.delete_logged_model(model.model_id)


def _of(fingerprint: str) -> str:
    return f"tags.`zoo.fingerprint` = '{fingerprint}'"


def _forget_member(client: MlflowClient, entry: str, checkpoint: str, member: str) -> bool:
    """Take a member from its checkpoint's registered version; whether the version went, being that of no other member."""
    version = registered_version(client, entry, checkpoint)
    if version is None:
        return False
    rest: Sequence[str] = sorted(members_of(version.tags) - {member})
    if rest:
        client.set_model_version_tag(entry, version.version, "zoo.members", ",".join(rest))
        return False
    client.delete_model_version(entry, version.version)
    if not client.search_model_versions(f"name = '{entry}'", max_results=1):
        client.delete_registered_model(entry)
    kept = kept_aliases()
    aliases = {alias: given for alias, given in kept.get(entry, {}).items() if given["checkpoint"] != checkpoint}
    if aliases != kept.get(entry, {}):
        kept = {name: given for name, given in (kept | {entry: aliases}).items() if given}
        write_atomic(aliases_file(), json.dumps(kept, indent=1, sort_keys=True))
    return True
