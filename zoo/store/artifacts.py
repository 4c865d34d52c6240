"""Artifact folders: fingerprint, atomic commit, drift check.

A stage's result lies in `<store>/<stage>-<fingerprint>/`. It is made in `<store>/.partial/<same name>/`, where a run that was
killed goes on, and appears under its final name by one rename after `manifest.json` is written: what has the final name is
finished. The fingerprint covers the whole request except the paths of its inputs, so moving a store or a data file changes
nothing, and any change of a setting or an input is a new artifact.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from zoo.contracts import SCHEMA_VERSION, BaseRequest, FileRecord, Manifest, first_fault
from zoo.errors import ZooError
from zoo.store.files import file_sha256, write_atomic

PARTIAL = ".partial"  # folder of the store where stages work
SHORTEST_NAME = 6  # digits of a fingerprint that say which is meant
ASIDE = ".aside"  # folder of the store for what lay under an artifact's name and was none
INCOMING = ".incoming"  # folder of the store where artifacts arrive from elsewhere
JOBS = ".jobs"  # folder of the store: tasks that hosts share, a folder a job
APART = ".manifests"  # folder of the store: manifests of stages whose files are elsewhere, for lineage
CHECKED_BY = ("packages_sha256",)  # a package is named by its version; its hash, given later, makes it no other one
SMALL_BYTES = 64 << 20  # files below are hashed when a stage is given them: seconds at most for all of an artifact's
logger = logging.getLogger("zoo")
# What the runner and a stage's process leave in a stage's folder, beside what the stage makes.
MANIFEST = "manifest.json"
REQUEST = "request.json"
RESULT = "result.json"
ERROR = "error.json"
LOG = "stage.log"
LIVE = "live.jsonl"  # what a stage says of itself while it runs; no part of the artifact
FRAMES = "frames"  # folder of the home: DataFrames that artifacts were made of, as files
TRUTH = ".truth"  # folder of the store: labels and prompts of data sets, as leaderboards have read them


@dataclass(frozen=True)
class Artifact:
    """A finished folder of the store."""

    path: Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint


def identity(request: BaseRequest | Mapping[str, Any]) -> dict[str, JsonValue]:
    """What a request asks, without where its inputs lie now.

    It is the mapping that is fingerprinted and compared.

    Also of JSON that holds requests, as read from a file: what was written by another version need not fit today's types.
    """
    dumped = request.model_dump(mode="json") if isinstance(request, BaseRequest) else request
    return {key: _without_paths(value) for key, value in dumped.items()}


def _without_paths(value: JsonValue) -> JsonValue:
    """JSON in which every input is its fingerprint alone, without what it is only checked by."""
    if isinstance(value, dict):
        if value.keys() == {"path", "fingerprint"}:
            return value["fingerprint"]
        return {key: _without_paths(item) for key, item in value.items() if key not in CHECKED_BY}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def fingerprint(request: BaseRequest | Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the request's identity as canonical JSON."""
    text = json.dumps(identity(request), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def artifact_name(request: BaseRequest) -> str:
    return f"{request.stage}-{fingerprint(request)}"


def differing_field(wanted: JsonValue, found: JsonValue, prefix: str = "") -> str | None:
    """Dotted name of the first place where two identities differ, or None.

    `prefix` is the place of the two themselves.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            place = differing_field(wanted.get(key), found.get(key), f"{prefix}{key}.")
            if place:
                return place
        return None
    return None if wanted == found else prefix.rstrip(".") or "request"


def names_fingerprint(text: str, whole: str) -> bool:
    """Whether people mean the fingerprint `whole` by `text`: it, or enough of its beginning."""
    return bool(whole) and (text == whole or (len(text) >= SHORTEST_NAME and whole.startswith(text)))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished folder; a clear error where it cannot be read."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ZooError(f"{path}: not a manifest ({error}); {_mend(folder)}") from error
    return parse_manifest(text, str(path), _mend(folder))


def parse_manifest(text: bytes, where: str, mend: str) -> Manifest:
    """The manifest that a file holds; a clear error with the mend where it holds none."""
    try:
        raw = json.loads(text)
        version = raw.get("schema_version", 0) if isinstance(raw, dict) else 0
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ZooError(f"{where}: schema version {version} is newer than {SCHEMA_VERSION}; upgrade this package")
        return Manifest.model_validate(raw)
    except (ValueError, RecursionError) as error:
        what = first_fault(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise ZooError(f"{where}: not a manifest ({what}); {mend}") from error


def find(store: Path, request: BaseRequest) -> Artifact | None:
    """The finished artifact of a request, or None.

    One that drifted from its request or lost a file is refused by name.
    """
    folder = store / artifact_name(request)
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    place = differing_field(identity(request), identity(manifest.request))
    if place:
        raise ZooError(f"{folder / MANIFEST}: `{place}` differs from the request; {_mend(folder)}")
    check_files(Artifact(folder, manifest))
    return Artifact(folder, manifest)


def check_files(artifact: Artifact, *, hash_below: int = 0) -> None:
    """ZooError naming the first file of an artifact that is not as its manifest says.

    Sizes of all files; SHA-256 of those smaller than `hash_below` bytes.
    """
    for name, record in artifact.manifest.files.items():
        state = file_fault(artifact.path / name, record, hashed=record.bytes < hash_below)
        if state:
            raise ZooError(f"{artifact.path / name} {state}; {_mend(artifact.path)}")


def file_fault(path: Path, record: FileRecord, *, hashed: bool, read: Callable[[int], object] = lambda _: None) -> str:
    """What of a file differs from its manifest's record; empty where nothing does.

    `read` is told how many bytes more were hashed.
    """
    try:
        size = path.stat().st_size
        if size != record.bytes:
            return f"has {size} bytes, not {record.bytes}"
        if hashed and file_sha256(path, read=read) != record.sha256:
            return "was changed: its SHA-256 is not that of the manifest"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _mend(folder: Path) -> str:
    if folder.parent.name == APART:
        return f"its files are elsewhere: `zoo pull {folder.name}` gets them, where a remote has them"
    return f"`zoo rm {folder.name}` removes it, then run the stage again"


def list_artifacts(store: Path, *stages: str) -> list[Artifact]:
    """Finished artifacts of a store, oldest first; all stages, or only those named.

    One whose manifest cannot be read is told, once a process, and hides no other.
    """
    found = []
    for folder in sorted(path.parent for path in store.glob(f"*/{MANIFEST}")):
        try:
            found.append(Artifact(folder, read_manifest(folder)))
        except ZooError as error:
            leave_out(error)
    return sorted(
        (a for a in found if not stages or a.manifest.stage in stages),
        key=lambda a: (a.manifest.created_at, a.path.name),
    )


def leave_out(error: ZooError) -> None:
    """Tell, once a process, of what cannot be read and hides nothing else."""
    _tell(str(error))


@functools.cache
def _tell(text: str) -> None:
    logger.warning("left out: %s", text)


def set_aside(folder: Path) -> None:
    """Move what lies under an artifact's name and is none out of its way; `zoo gc` removes it.

    It has no manifest: a copy that was cut short, or a folder made by hand. Hold the artifact's lock.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    aside = folder.parent / ASIDE / f"{folder.name}.{secrets.token_hex(4)}"
    aside.parent.mkdir(exist_ok=True)
    folder.rename(aside)
    logger.warning("%s has no manifest, so it is no finished artifact: it is kept as %s", folder, aside)


def recorded_files(folder: Path) -> Iterator[Path]:
    """The files of an artifact's folder that its manifest records."""
    return (path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, REQUEST))


def commit(partial: Path, final: Path, manifest: Callable[[dict[str, FileRecord]], Manifest]) -> Artifact:
    """Turn a partial folder into a finished one.

    Hash its files, write the manifest last, fsync, rename. What lay under the final name without a manifest is set aside.
    """
    files = {}
    for path in sorted(recorded_files(partial)):
        files[path.relative_to(partial).as_posix()] = FileRecord(bytes=path.stat().st_size, sha256=file_sha256(path))
    record = manifest(files)
    write_atomic(partial / MANIFEST, record.model_dump_json(indent=1))
    publish(partial, final)
    return Artifact(final, record)


def publish(partial: Path, final: Path) -> None:
    """Give a folder that is whole, manifest and all, its final name.

    What lay there without a manifest is set aside.
    """
    if not (final / MANIFEST).exists():
        set_aside(final)
    partial.rename(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
