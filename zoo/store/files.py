"""Files that are whole or absent: atomic writes, hashes, scratch folders, locks.

A lock dies with its holder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zoo.errors import ZooError

FICLONE = 0x40049409  # linux/fs.h: share all blocks of one file with another, each with its own copy of what changes
BLOCK_BYTES = 1 << 22


def file_sha256(path: Path, *, read: Callable[[int], object] = lambda _: None) -> str:
    """SHA-256 of a file in hex; `read` is told how many bytes more were read."""
    digest = hashlib.sha256()
    with path.open("rb", 0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            read(len(block))
    return digest.hexdigest()


def checked_files(folder: Path) -> list[Path]:
    """Files of a user's folder and of the folders in it, by name.

    A link counts as the file that it leads to. ZooError by name for what is not to be read: a link
    that leaves the folder or leads nowhere, a FIFO, device or socket.
    """
    inside = Path(os.path.realpath(folder))
    files = []
    for path in sorted(folder.rglob("*")):
        real = Path(os.path.realpath(path))
        if path.is_symlink() and not real.exists():
            raise ZooError(f"{path}: a link that leads nowhere; remove it")
        if not real.is_relative_to(inside):
            raise ZooError(f"{path}: a link out of the folder, to {real}; if it is meant, give a copy made by `cp -rL`")
        if real.is_file():
            files.append(path)
        elif not real.is_dir():
            raise ZooError(f"{path}: neither a file nor a folder; remove it")
    return files


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, following links.

    The file system may share its blocks, but no change of one reaches the other. OSError where the
    source is no longer an ordinary file: what was checked may have been exchanged since.
    """
    real = os.open(os.path.realpath(source), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(real, "rb", 0) as original:
        if not stat.S_ISREG(os.fstat(real).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(source))
        with target.open("xb") as copy:
            with suppress(OSError):  # not where the file system cannot, nor across file systems
                fcntl.ioctl(copy.fileno(), FICLONE, real)
                return
            with suppress(OSError, AttributeError):  # not on Linux: what is left is copied below
                while os.copy_file_range(real, copy.fileno(), 1 << 30):
                    pass
            shutil.copyfileobj(original, copy, BLOCK_BYTES)


def copy_over(source: str | Path, target: str | Path) -> str:
    """Copy a file in the place of one that may be there; returns the target.

    As `shutil.copytree` takes it.
    """
    Path(target).unlink(missing_ok=True)
    copy_file(Path(source), Path(target))
    return str(target)


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint of a model folder by the names and contents of its files.

    It serves for weights that no stage of ours made. ZooError as `checked_files` says.
    """
    digest = hashlib.sha256()
    for path in checked_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes the place of `path` whole or not at all.

    Temporary file beside it, fsync, rename. Its name cannot be guessed and it is new, so that no link that lies there is ever
    followed; a link at `path` itself is replaced.
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
    """Descriptor of a lock file, made where there is none.

    OSError where a link lies there, which is not followed.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def is_held(path: Path) -> bool:
    """Whether a living process holds a lock file.

    One that this user may not open counts as held.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except PermissionError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_file(store: Path, name: str) -> Path:
    """The file of the store's lock `name`."""
    return store / ".locks" / f"{name}.lock"


@contextmanager
def if_free(lock: Path) -> Iterator[bool]:
    """Hold a lock file while the block runs, where no other process does.

    Yields whether it is held here.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(lock)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextmanager
def locked(store: Path, name: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the store's lock `name` and yield its file descriptor.

    The lock belongs to the open file: a child process that inherits the descriptor keeps it when its parent is killed, and
    the kernel frees it when the last holder dies, so that no stale lock is ever left behind.
    """
    path = lock_file(store, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(path)
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
