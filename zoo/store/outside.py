"""Files outside the home that people name: what a command reads and writes for them.

An output never takes the place of an input, nor of what is no file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zoo.errors import ZooError


def check_ordinary(path: Path) -> None:
    """ZooError where an input is a FIFO, device, socket or folder.

    One that does not exist is its reader's to tell.
    """
    if path.exists() and not path.is_file():
        raise ZooError(f"{path}: {_kind(path)}, not an ordinary file; give a file")


def read_ordinary(path: Path, *, most_bytes: int) -> bytes:
    """The content of an ordinary file.

    ZooError for anything else, which opening or reading might wait for without end, and for a file larger than `most_bytes`.
    OSError where it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ZooError(f"{path}: {_kind(path)}, not an ordinary file; give a file")
        if found.st_size > most_bytes:
            raise ZooError(f"{path}: {found.st_size:,} bytes, more than the {most_bytes:,} that such a file can have")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes + 1)
    finally:
        os.close(descriptor)


def check_output(output: Path, *inputs: Path | None) -> None:
    """ZooError where writing `output` would take the place of what must stay.

    That is an input of the same command, or anything that is no file. Inputs are recognised by their place and, under another
    name, by what lies there. Where a link lies, the file that it leads to is the one to be named. Called before any work is
    done; an earlier output is replaced as ever.
    """
    if output.is_symlink():
        raise ZooError(f"{output}: a link to {os.path.realpath(output)}, which the output would replace; name that file itself")
    if output.exists() and not output.is_file():
        raise ZooError(f"{output}: {_kind(output)}; give the name of a file to write")
    for path in inputs:
        if path is not None and _same(output, path):
            raise ZooError(f"{output}: the output would replace {path}, which the command reads; give another name")


def _same(output: Path, path: Path) -> bool:
    """Whether two paths are one place, or two names of one file."""
    if os.path.realpath(output) == os.path.realpath(path):
        return True
    return output.exists() and path.exists() and output.samefile(path)


def _kind(path: Path) -> str:
    kinds = {"a folder": Path.is_dir, "a FIFO": Path.is_fifo, "a socket": Path.is_socket}
    return next((kind for kind, is_one in kinds.items() if is_one(path)), "a device")
