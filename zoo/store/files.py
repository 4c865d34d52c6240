"""Files that are whole or absent: atomic writes, hashes, scratch folders, locks.

A lock dies with its holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint of a model folder by the names and contents of its files.

    It serves for weights that no stage of ours made.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes the place of `path` whole or not at all: temporary file beside it, fsync, rename.

    The temporary file's name cannot be guessed and the file is new, so that no link that lies there is ever followed; a link at
    `path` itself is replaced.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file whole or not at all."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards.

    Its name is fixed: what a killed run left there goes with it, also in a partial folder that is committed in the end.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_lock(path: Path) -> int:
    """Descriptor of a lock file, made where there is none; OSError where a link lies there, which is not followed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


@contextmanager
def locked(store: Path, name: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the store's lock `name` and yield its file descriptor.

    The lock belongs to the open file: a child process that inherits the descriptor keeps it when its parent is killed, and
    the kernel frees it when the last holder dies, so that no stale lock is ever left behind.
    """
    folder = store / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(folder / f"{name}.lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
