"""Files that people hand over, read within bounds: ordinary files of a possible size only."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

MOST_JSON_BYTES = 64 << 20  # a model's config, or an index of its shards: real ones are below 10 MiB


def read_bytes(path: Path, most: int, *, mend: str) -> bytes:
    """A file's content.

    ZooError as `read_head` says, and where it is larger than `most` bytes.
    """
    data = read_head(path, most + 1, mend=mend)
    if len(data) > most:
        raise ZooError(f"{path}: larger than {most >> 20} MiB, which none of its kind is; {mend}")
    return data


def check_ordinary(path: Path, *, mend: str) -> None:
    """ZooError, as `read_head` says, for what is no file: for readers that open it themselves."""
    read_head(path, 0, mend=mend)


def read_head(path: Path, size: int, *, mend: str) -> bytes:
    """The first `size` bytes of a file, or all of one that is shorter.

    ZooError, which ends in `mend`, for whatever cannot be read: a folder, FIFO, device or socket, a link that leads nowhere or
    in a circle. Opening a FIFO does not wait for a writer.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            kind = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(kind):
                what = "cannot be read (Is a directory)" if stat.S_ISDIR(kind) else "neither a file nor a link to one"
                raise ZooError(f"{path}: {what}; {mend}")
            return file.read(size)
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error}); {mend}") from error


def parse_json(data: bytes, path: Path, *, mend: str) -> Any:
    """JSON of a file that was read. ZooError where it is none, or nested too deeply."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise ZooError(f"{path}: JSON that is nested too deeply; {mend}") from error
    except ValueError as error:  # json's own, bytes that are not UTF-8, and numbers of thousands of digits
        raise ZooError(f"{path}: not JSON ({str(error).splitlines()[0]}); {mend}") from error


def read_json_object(path: Path, *, mend: str) -> dict[str, Any]:
    """A JSON file that holds an object. ZooError where it does not."""
    found = parse_json(read_bytes(path, MOST_JSON_BYTES, mend=mend), path, mend=mend)
    if not isinstance(found, dict):
        raise ZooError(f"{path}: a JSON {type(found).__name__}, not an object; {mend}")
    return found
