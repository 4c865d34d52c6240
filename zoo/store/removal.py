"""Removal of artifacts: what is made from them, what is in use, and how they go whole."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.contracts import inputs_of, parse_request
from zoo.errors import ZooError
from zoo.store.artifacts import MANIFEST, PARTIAL, REQUEST, read_manifest
from zoo.store.files import if_free, is_held, lock_file, write_atomic
from zoo.store.lineage import dependents

TRASH = ".trash"  # folder beside what is removed: what is being removed, and what a killed removal left
NEEDED = "checkpoints.json"  # in a prediction's work folder: fingerprints that it reads, before and while its members run


@dataclass(frozen=True)
class Removal:
    """Artifacts to remove, those that were made from others before these.

    `why`: by name, what each that was not asked for is made from. `kept`: by name, what is made from an artifact and is not to
    be removed: it stands in the way.
    """

    folders: list[Path]
    why: dict[str, str]
    kept: dict[str, list[str]] = field(default_factory=dict)


def plan_removal(store: Path, asked: Sequence[Path], *, with_dependents: bool) -> Removal:
    """The removal of these artifacts, with all that was made from them or refused because of it."""
    made_from = dependents(store)
    order: list[Path] = []
    why: dict[str, str] = {}
    kept: dict[str, list[str]] = {}
    names = {folder.name for folder in asked}

    def visit(folder: Path) -> None:
        if folder in order:
            return
        children = [a.path for a in made_from.get(fingerprint_of(folder), []) if a.path != folder]
        for child in children:
            if child.name in names or with_dependents:
                if child.name not in names:
                    why.setdefault(child.name, folder.name)
                visit(child)
            else:
                kept.setdefault(folder.name, []).append(child.name)
        if folder not in order:
            order.append(folder)

    for folder in asked:
        visit(folder)
    return Removal(order, why, kept)


def fingerprint_of(folder: Path) -> str:
    """The fingerprint in an artifact's name: it is known also where the manifest cannot be read."""
    return folder.name.rpartition("-")[2]


def in_use(home: Path) -> dict[str, str]:
    """Fingerprints that running stages and predictions read, and who does."""
    found: dict[str, str] = {}
    for store in stores(home):
        for partial in (store / PARTIAL).glob("*"):
            if is_held(lock_file(store, partial.name)):
                found |= dict.fromkeys(_read_by(partial / REQUEST), f"{partial.name}, which is being made")
    for folder in (home / "predict").glob("*"):
        if is_held(folder / "lock"):
            read = {each for request in folder.glob(f"**/{REQUEST}") for each in _read_by(request)}
            found |= dict.fromkeys(read | _needed(folder), "a prediction that is running")
    return found


def note_needed(work: Path, checkpoints: Iterable[str]) -> None:
    """Note in a prediction's work folder, which it holds, what its members will read.

    A member that waits for its turn has left no request yet. Nothing where no file can be written.
    """
    with suppress(OSError):
        write_atomic(work / NEEDED, json.dumps(sorted(set(checkpoints))))


def _needed(work: Path) -> set[str]:
    with suppress(OSError, ValueError, TypeError):
        return {str(each) for each in json.loads((work / NEEDED).read_text())}
    return set()


def _read_by(request: Path) -> Iterator[str]:
    with suppress(OSError, ValueError):  # pydantic's error is a ValueError
        yield from {given.fingerprint for given in inputs_of(parse_request(request.read_bytes()))}


def stores(home: Path) -> tuple[Path, ...]:
    """The stores of a home: that of artifacts, and that of measured samples."""
    return home / "store", home / "cost"


def trash_of(path: Path, home: Path) -> Path:
    """Where a file or folder of a home goes first when it is removed.

    Beside it in its own part of the home, which may be a link to another disk: a rename does not cross file systems.
    """
    for part in _parts(home):
        if path.is_relative_to(part):
            return part / TRASH
    return home / TRASH


def trash(home: Path) -> list[Path]:
    """What killed removals left in a home."""
    return [path for part in (home, *_parts(home)) for path in sorted((part / TRASH).glob("*"))]


def _parts(home: Path) -> tuple[Path, ...]:
    """The folders of a home that may be links to other disks."""
    return (*stores(home), home / "predict", home / "artifacts")


def remove_artifact(folder: Path, home: Path, *, before: Callable[[], None] = lambda: None) -> None:
    """Remove an artifact that nobody uses; ZooError where somebody does.

    `before` is called when that is known and nothing is removed yet.
    """
    with if_free(lock_file(folder.parent, folder.name)) as free:
        user = in_use(home).get(fingerprint_of(folder))
        if not free or user:
            raise ZooError(f"{folder.name} is in use by {user or 'a process that makes it'}; wait for its end", exit_code=1)
        before()
        discard(folder, home)


def discard(path: Path, home: Path) -> None:
    """Remove a file or a folder of a home: out of the way by one rename, then its content.

    Killed in between, it is in the trash, which `zoo gc` empties. Of a link the link alone is removed.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    gone = path
    if path.parent.name != TRASH:
        gone = trash_of(path, home) / f"{path.name}.{secrets.token_hex(4)}"
        gone.parent.mkdir(parents=True, exist_ok=True)
        path.rename(gone)
    shutil.rmtree(gone, onerror=_unless_gone)


def _unless_gone(_: object, __: object, fault: Any) -> None:
    """What another command that empties the same trash has removed is no fault."""
    if not isinstance(fault[1], FileNotFoundError):
        raise fault[1]


def manifest_stage(folder: Path) -> tuple[str, str]:
    """Stage and entry of an artifact as far as they are known: the stage is in its name too."""
    if (folder / MANIFEST).exists():
        with suppress(ZooError):
            manifest = read_manifest(folder)
            return manifest.stage, manifest.request.entry
    return folder.name.rpartition("-")[0], ""
