"""An artifact from a remote: fetched, compared, and in the store only when it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.contracts import FileRecord, Manifest, inputs_of
from zoo.errors import ZooError
from zoo.remote.contents import PARTS, Index, Kept, read_kept, read_note
from zoo.remote.faults import AGAIN, Unreachable
from zoo.remote.files import BLOCK, RemoteFiles
from zoo.remote.push import Bar
from zoo.store import (
    APART,
    INCOMING,
    MANIFEST,
    REQUEST,
    WRITTEN,
    Artifact,
    file_sha256,
    find_written,
    leave_out,
    publish,
    with_fingerprint,
    write_atomic,
)

SPARE_BYTES = 64 << 20  # that stay free on the disk of a store


def pull_artifact(kept: Kept, files: RemoteFiles, store: Path, bar: Bar) -> Artifact:
    """Fetch an artifact into a store; hold its lock (`zoo.store.locked`).

    Killed, it leaves `.incoming/NAME`, from which the same call goes on. ZooError, and nothing in the store, where a file is
    not what the manifest says, or the disk has no room.
    """
    folder = store / INCOMING / kept.name
    with _room(store):
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        _check_room(kept, folder)
        with bar(f"pull {kept.name}", kept.bytes) as shown:
            for file, record in kept.manifest.files.items():
                _fetch(files, kept, folder, file, record, shown.update)
        shutil.rmtree(folder / PARTS)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if path.relative_to(folder).as_posix() not in kept.manifest.files:
                path.unlink()  # of a manifest that was there when an earlier pull began
        if REQUEST not in kept.manifest.files:
            write_atomic(folder / REQUEST, kept.manifest.request.model_dump_json(indent=1))
        write_atomic(folder / MANIFEST, kept.text)
        publish(folder, store / kept.name)
    return Artifact(store / kept.name, kept.manifest)


def pull_earlier(kept: Kept, files: RemoteFiles, store: Path, index: Index) -> None:
    """Fetch the manifests and notes of what an artifact was made from.

    However far back, as far as the remote has them.
    """
    todo, seen = [kept.manifest], {kept.manifest.fingerprint}
    while todo:
        for given in inputs_of(todo.pop().request):
            digests = [given.fingerprint, *_writers(files, store, index, given.fingerprint)]
            for digest in digests:
                if digest not in seen:
                    seen.add(digest)
                    todo += _earlier(files, store, index, digest)


def _earlier(files: RemoteFiles, store: Path, index: Index, digest: str) -> list[Manifest]:
    """The manifests of a fingerprint, fetched where this store has none."""
    if known := [artifact.manifest for artifact in with_fingerprint(store, digest)]:
        return known
    found = []
    for name in index.named(digest):
        try:
            kept = read_kept(files, name, apart=name not in index.artifacts)
        except Unreachable:
            raise
        except ZooError as error:  # what is known of the rest is fetched all the same
            leave_out(error)
            continue
        if kept:
            with _room(store):
                (store / APART / name).mkdir(parents=True, exist_ok=True)
                write_atomic(store / APART / name / MANIFEST, kept.text)
            found.append(kept.manifest)
    return found


def _writers(files: RemoteFiles, store: Path, index: Index, digest: str) -> list[str]:
    """Fingerprints of the artifacts that wrote a file, by its note, fetched where this store has none."""
    if digest in index.notes and find_written(store, digest) is None and (text := read_note(files, digest)):
        with _room(store):
            (store / WRITTEN).mkdir(parents=True, exist_ok=True)
            write_atomic(store / WRITTEN / f"{digest}.json", text)
    note = find_written(store, digest)
    return [writer.artifact.rpartition("-")[2] for writer in note.writers] if note else []


def _fetch(files: RemoteFiles, kept: Kept, folder: Path, file: str, record: FileRecord, told: Callable[[int], object]) -> None:
    """Fetch one file, or what is missing of it."""
    target, part = folder / file, folder / PARTS / record.sha256
    if target.is_file() and target.stat().st_size == record.bytes and file_sha256(target) == record.sha256:
        told(record.bytes)
        return
    if part.exists() and part.stat().st_size > record.bytes:
        part.unlink()
    digest = hashlib.sha256()
    with part.open("a+b") as arriving:
        arriving.seek(0)
        begin = 0
        while block := arriving.read(BLOCK):
            digest.update(block)
            begin += len(block)
        told(begin)
        # A byte more than there should be shows that a file has grown.
        for block in files.blocks(f"{kept.name}/{record.sha256}", begin, record.bytes + 1):
            arriving.write(block)
            digest.update(block)
            told(len(block))
        arriving.flush()
        os.fsync(arriving.fileno())
    if digest.hexdigest() != record.sha256:
        part.unlink()
        raise ZooError(
            f"{files.where(kept.name)}: {file} is not what the manifest says (SHA-256), so nothing of it was taken; the same "
            "command fetches it again; if it says so again, have it removed there and pushed anew",
            exit_code=1,
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def _check_room(kept: Kept, folder: Path) -> None:
    """ZooError where the disk has less room than what is missing takes."""
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free < kept.bytes - here + SPARE_BYTES:
        more = (kept.bytes - here + SPARE_BYTES - free) / 2**20
        raise ZooError(f"{kept.name}: no space for it at {folder.parent}: {more:,.0f} MiB are missing; make room", exit_code=1)


@contextmanager
def _room(store: Path) -> Iterator[None]:
    """A disk that is full, or may not be written, in one line."""
    try:
        yield
    except OSError as error:
        why = "no space is left" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else error.strerror or str(error)
        raise ZooError(f"{store}: {why}; make room or see its permissions, and {AGAIN}", exit_code=1) from error
