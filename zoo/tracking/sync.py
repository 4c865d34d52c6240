"""`zoo sync`: log every stage, build and prediction that the tracking store lacks.

A tracking store that is down never costs a stage or a plan: what could not be logged, or whose logger was killed, is logged by
the next command that reaches the store, and by `zoo sync`. Logging again adds nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoo.contracts import Entry, Manifest
from zoo.errors import ZooError
from zoo.settings import home, store_folder
from zoo.store import MANIFEST, Artifact, fingerprint_of, leave_out, list_artifacts, locked, read_manifest
from zoo.tracking.bounded import SECONDS
from zoo.tracking.builds import BUILD, build_mark, keep_build, mirror_build
from zoo.tracking.client.connection import connect
from zoo.tracking.client.runs import end_dead_runs
from zoo.tracking.home import (
    database,
    is_marked,
    is_owed,
    kept_builds,
    kept_uses,
    mark_begun,
    mask,
    one_line,
    refused,
    tracking_uri,
    unmark,
)
from zoo.tracking.live import followed
from zoo.tracking.models import restore_aliases
from zoo.tracking.notes import keep_notes
from zoo.tracking.removed import forget_removed, is_removal_owed
from zoo.tracking.stages import mirror_stage
from zoo.tracking.tuned import mirror_tuned, tuned_folders
from zoo.tracking.uses import mirror_use

logger = logging.getLogger("zoo")


def log_stage(manifest: Manifest, artifact_dir: Path, entry: Entry | None = None, *, seconds: float = SECONDS) -> bool:
    """Log a finished stage, and what its store's database lacks.

    False, with a one-line warning, where that cannot be done. `seconds` for the store's first answer; with none left it did
    not answer what was asked before, and is not asked again.
    """
    name = f"{manifest.stage}-{manifest.fingerprint}"

    def log() -> None:
        if seconds <= 0:
            mark_begun(name)
            raise TimeoutError("no answer when the stage had ended")
        artifact = Artifact(artifact_dir, manifest)
        added = 0 if is_marked(name) else _mirror_or_leave(artifact, entry, seconds=seconds)
        if added + _log_owed(artifact_dir.parent) or _is_unsettled():
            _settle()

    return _log(log, "the stage")


def log_build(
    plan: Mapping[str, Any],
    numbers: Mapping[str, float],
    members: Mapping[str, str],
    files: Sequence[Path] = (),
    spans: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Log an ensemble build.

    Its plan, its numbers, and the runs of its members, which become their entries' champions. `members`: member name ->
    fingerprint of the score artifact it came from. `files`: figures and tables; the plan itself is taken from `plan`, without
    the paths in it. `spans`: what of the build took how long. False, with a warning, where the store is down.
    """
    folder = keep_build(plan, numbers, members, files, spans)

    def log() -> None:
        _log_owed(store_folder())  # its members first
        mirror_build(folder)
        _settle()

    return _log(log, "the plan")


def log_tuned(folder: Path) -> bool:
    """Log a study of training settings from the folder in which it left its report.

    False, with a warning, where the store is down.
    """
    unmark(folder.name)  # it may have gone on since it was logged

    def log() -> None:
        mirror_tuned(folder)
        _settle()

    return _log(log, "the study")


def log_uses() -> bool:
    """Log what plans were used for, as files of the home keep it.

    False, with a warning, where the store is down: the next command does it.
    """
    return _log(lambda: catch_up(store_folder()), "what the board said")


def log_removals() -> bool:
    """Take from the tracking store what was removed from the store.

    False, with a warning, where the store is down: the next command does it.
    """
    return _log(lambda: _settle() if is_removal_owed() else None, "the removal")


def _log(log: Callable[[], None], what: str) -> bool:
    try:
        log()
    except Exception as error:
        logger.debug("tracking failed", exc_info=True)
        mend = "is not taken there" if refused(error) else "is kept: run `zoo sync` when it is back"
        logger.warning("%s: %s; %s %s", mask(tracking_uri()), one_line(error), what, mend)
        return False
    return True


def catch_up(store: Path) -> None:
    """Log what a killed process left half logged, and what the home's own database lacks.

    Known without asking MLflow, so that it costs nothing where all is logged. Whether older stages belong into a store that is
    not the home's own, only `zoo sync` is told.
    """
    if _log_owed(store) or _is_unsettled():
        _settle()


def _is_unsettled() -> bool:
    """Whether a removal is still to be told, or a process that showed a stage was killed."""
    return is_removal_owed() or bool(followed()[0])


def keep_people_s_notes() -> None:
    """Keep what people wrote in MLflow's UI since something was logged last."""
    _log(_settle, "what was written in MLflow")


def _log_owed(store: Path) -> int:
    """Log the stages and builds that are owed; how many were missing."""
    added = 0
    for folder in sorted(path.parent for path in store.glob(f"*/{MANIFEST}")):
        if is_owed(folder.name):
            try:
                manifest = read_manifest(folder)
            except ZooError as error:
                leave_out(error)
                continue
            added += _mirror_or_leave(Artifact(folder, manifest), entry_of(manifest))
    return added + _mirror_kept(is_owed)


def _uses() -> list[Path]:
    """Kept predictions and evaluations, oldest first."""
    return sorted(kept_uses().glob("*.json"))


def _mirror_or_leave(artifact: Artifact, entry: Entry | None, *, seconds: float = SECONDS) -> int:
    """Log a stage's runs; 1 where any was missing.

    One bad artifact never keeps the others back: it is told and left out. What is said of anything else is raised.
    """
    try:
        return _unless_refused(artifact.path.name, lambda: mirror_stage(artifact, entry, seconds=seconds))
    except ZooError as error:
        if str(artifact.path) not in str(error):
            raise
        leave_out(error)
        return 0


def _unless_refused(name: str, mirror: Callable[[], bool]) -> int:
    """Log one result, 1 where it was missing; what MLflow will never take is told and keeps no other back."""
    try:
        return int(mirror())
    except Exception as error:
        if not refused(error):
            raise
        leave_out(ZooError(f"{name}: MLflow refuses it: {one_line(error)}"))
        return 0


def _mirror_kept(is_wanted: Callable[[str], bool] = lambda name: True) -> int:
    """Log the builds, studies and uses that the home keeps; how many were missing. `is_wanted`: by the name of their mark."""
    kept = [
        *((build_mark(folder), partial(mirror_build, folder)) for folder in _builds()),
        *((folder.name, partial(mirror_tuned, folder)) for folder in tuned_folders()),
        *((path.stem, partial(mirror_use, path)) for path in _uses()),
    ]
    return sum(_unless_refused(name, mirror) for name, mirror in kept if is_wanted(name))


def sync(store: Path) -> int:
    """Log every artifact, build, prediction and evaluation that the tracking store lacks.

    Returns how many that were. ZooError, with the way out, where the tracking store cannot be reached or used.
    """
    added = 0
    try:
        for artifact in list_artifacts(store):
            added += _mirror_or_leave(artifact, entry_of(artifact.manifest))
        added += _mirror_kept()
        _settle()
    except ZooError:
        raise
    except Exception as error:
        logger.debug("sync failed", exc_info=True)
        raise unusable(error, "zoo sync") from None  # the cause's own text can hold the server's credentials
    return added


def _settle() -> None:
    """Do what is left when all is logged.

    Restore the aliases that people gave, and end the runs that a killed process left.
    """
    forget_removed()
    path = database()
    if path is not None and not path.exists():
        return
    with locked(home(), "tracking"):
        client = connect()
        restore_aliases(client)
        keep_notes(client)
        dead, living = followed()
        end_dead_runs(
            client,
            {fingerprint_of(note.with_suffix("")) for note in dead},
            {fingerprint_of(note.with_suffix("")) for note in living},
        )
        for note in dead:
            note.unlink(missing_ok=True)


def _builds() -> list[Path]:
    """Kept builds, oldest first: later ones crown their members last."""
    for waiting in (home() / "unlogged-builds").glob("*/"):  # where earlier versions kept those that were not logged
        kept_builds().mkdir(parents=True, exist_ok=True)
        if not (kept_builds() / waiting.name).exists():
            waiting.rename(kept_builds() / waiting.name)
    return [path.parent for path in sorted(kept_builds().glob(f"*/{BUILD}"), key=lambda path: path.stat().st_mtime)]


def unusable(error: Exception, command: str) -> ZooError:
    """A tracking store that cannot be reached or used, as one line with the way out.

    Credentials are left out.
    """
    text = (
        f"{mask(tracking_uri())}: {one_line(error)}; start the server or mend MLFLOW_TRACKING_URI, then run `{command}` again"
    )
    return ZooError(text, exit_code=1)


def entry_of(manifest: Manifest) -> Entry | None:
    """The entry of that name today, or None.

    Removing or renaming an entry never breaks old runs.
    """
    from zoo.entries.load import load_entry

    try:
        return load_entry(manifest.request.entry)
    except ZooError:
        return None
