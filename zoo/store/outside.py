"""Outputs that people name: none takes the place of an input, nor of what is no file."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.errors import ZooError


def check_output(output: Path, *inputs: Path | None) -> None:
    """ZooError where writing `output` would take the place of what must stay.

    That is an input of the same command, or anything that is no file. Inputs are recognised by their place and, under another
    name, by what lies there. Where a link lies, the file that it leads to is the one to be named. Called before any work is
    done, so that a folder in which nothing can be written is also told now; an earlier output is replaced as ever.
    """
    if output.is_symlink():
        raise ZooError(f"{output}: a link to {os.path.realpath(output)}, which the output would replace; name that file itself")
    if output.exists() and not output.is_file():
        raise ZooError(f"{output}: {_kind(output)}; give the name of a file to write")
    for path in inputs:
        if path is not None and _same(output, path):
            raise ZooError(f"{output}: the output would replace {path}, which the command reads; give another name")
    folder = next(path for path in output.absolute().parents if path.exists())
    if not folder.is_dir():
        raise ZooError(f"{output}: {folder} is no folder; give a name in one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ZooError(f"{output}: nothing can be written in {folder}; give a name in a folder of yours")


def _same(output: Path, path: Path) -> bool:
    """Whether two paths are one place, or two names of one file."""
    if os.path.realpath(output) == os.path.realpath(path):
        return True
    return output.exists() and path.exists() and output.samefile(path)


def _kind(path: Path) -> str:
    kinds = {"a folder": Path.is_dir, "a FIFO": Path.is_fifo, "a socket": Path.is_socket}
    return next((kind for kind, is_one in kinds.items() if is_one(path)), "a device")
