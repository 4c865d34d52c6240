"""An artifact to a remote: sent, read back, and seen by others only when it is whole."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from zoo.contracts import FileRecord, inputs_of
from zoo.errors import ZooError
from zoo.remote.contents import Index, Kept, read_kept
from zoo.remote.faults import AGAIN
from zoo.remote.files import BLOCK, RemoteFiles
from zoo.store import APART, MANIFEST, WRITTEN, Artifact, check_files, earlier, file_sha256, locked

Bar = Callable[[str, int], AbstractContextManager[Any]]  # description and bytes -> a bar with `update`


def push_artifact(artifact: Artifact, files: RemoteFiles, bar: Bar) -> bool:
    """Put an artifact on a remote; whether it was put there now.

    False: it is there, or another push of it was faster. Killed, it leaves nothing that others see, and the same call goes on.
    """
    name, store = artifact.path.name, artifact.path.parent
    with locked(store, f"push-{name}"):
        if there := read_kept(files, name):
            _check_there(files, there)
            _clear(files, name, _owner(store))
            return False
        check_files(artifact)
        content = {record.sha256: (artifact.path / file, record) for file, record in artifact.manifest.files.items()}
        _send(files, name, content, _owner(store), bar)
        _compare(files, name, content, _owner(store), bar)
        text = (artifact.path / MANIFEST).read_bytes()
        if files.put_once(f"{name}/{MANIFEST}", text, f"{name}/.{MANIFEST}.{_owner(store)}.part"):
            return True
        faster = read_kept(files, name)
        wanted = {record.sha256 for record in faster.manifest.files.values()} if faster else set(content)
        for sha256 in content.keys() - wanted:
            files.remove(f"{name}/{sha256}")
        return False


def push_earlier(artifact: Artifact, files: RemoteFiles, index: Index) -> list[str]:
    """Put the manifests and notes of what an artifact was made from on a remote; their names.

    What is there is left alone.
    """
    store = artifact.path.parent
    before = earlier(store, artifact.manifest)
    for name, one in before.items():
        if name not in index.artifacts | index.apart:
            text = (one.path / MANIFEST).read_bytes()
            files.put_once(f"{APART}/{name}/{MANIFEST}", text, f"{APART}/{name}/.{_owner(store)}.part")
    given = (each for one in (artifact, *before.values()) for each in inputs_of(one.manifest.request))
    for digest in sorted({each.fingerprint for each in given} - index.notes):
        note = store / WRITTEN / f"{digest}.json"
        if note.is_file():
            files.put_once(f"{WRITTEN}/{note.name}", note.read_bytes(), f"{WRITTEN}/.{note.name}.{_owner(store)}.part")
    return list(before)


def _send(files: RemoteFiles, name: str, content: dict[str, tuple[Path, FileRecord]], owner: str, bar: Bar) -> None:
    """Send what is missing, each file under a name of this store's own until it is compared."""
    there = files.names(name)
    with bar(f"push {name}", sum(record.bytes for _, record in content.values())) as shown:
        for sha256, (path, record) in content.items():
            part = _part(files, sha256, owner)
            if there.get(sha256) == record.bytes:
                shown.update(record.bytes)
                continue
            begin = there.get(part) or 0 if files.renames else 0
            begin = begin if begin <= record.bytes else 0
            shown.update(begin)
            if begin < record.bytes or part not in there:
                files.write(f"{name}/{part}", _read(path, begin, shown.update), after=begin)


def _compare(files: RemoteFiles, name: str, content: dict[str, tuple[Path, FileRecord]], owner: str, bar: Bar) -> None:
    """Read back what lies there, and give it its name where it is what the manifest says."""
    there = files.names(name)
    with bar(f"check {name}", sum(record.bytes for _, record in content.values())) as shown:
        for sha256, (path, record) in content.items():
            lies_as = sha256 if there.get(sha256) == record.bytes else _part(files, sha256, owner)
            digest = hashlib.sha256()
            for block in files.blocks(f"{name}/{lies_as}", 0, record.bytes + 1):
                digest.update(block)
                shown.update(len(block))
            if digest.hexdigest() != sha256:
                files.remove(f"{name}/{lies_as}")
                if file_sha256(path) != sha256:
                    raise ZooError(
                        f"{path} was changed: its SHA-256 is not that of the manifest; `zoo verify {name}` says more"
                    )
                raise ZooError(
                    f"{files.where(name)}: {path.name} did not arrive as it was sent (SHA-256); it was removed there, "
                    f"and {AGAIN}",
                    exit_code=1,
                )
            if lies_as != sha256:
                files.settle(f"{name}/{lies_as}", f"{name}/{sha256}")


def _check_there(files: RemoteFiles, there: Kept) -> None:
    """ZooError where an artifact that is on the remote has lost a file or a part of one."""
    sizes = files.names(there.name)
    for file, record in there.manifest.files.items():
        if sizes.get(record.sha256) != record.bytes:
            where = files.where(there.name)
            raise ZooError(
                f"{where}: is there, and {file} of it is missing or cut; remove {where}, and push again", exit_code=1
            )


def _clear(files: RemoteFiles, name: str, owner: str) -> None:
    """Remove what an earlier push from here has left half."""
    for file in files.names(name):
        if file.endswith(f".{owner}.part"):
            files.remove(f"{name}/{file}")


def _part(files: RemoteFiles, sha256: str, owner: str) -> str:
    return f".{sha256}.{owner}.part" if files.renames else sha256


def _owner(store: Path) -> str:
    """What tells this store's unfinished files from those of others that push the same artifact."""
    return hashlib.sha256(f"{socket.gethostname()} {store}".encode()).hexdigest()[:12]


def _read(path: Path, begin: int, told: Callable[[int], object]) -> Iterator[bytes]:
    try:
        with path.open("rb", 0) as file:
            file.seek(begin)
            while block := file.read(BLOCK):
                yield block
                told(len(block))
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror}); `zoo verify {path.parent.name}` says more") from error
