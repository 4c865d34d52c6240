"""One way into every format: a path as a header and rows of cells."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.data.formats.delimited import read_delimited
from zoo.data.formats.jsonl import objects_of, read_json_list, read_jsonl
from zoo.data.formats.magic import JSON_LIST, JSONL, PARQUET, Unread, format_of
from zoo.data.formats.parquet import read_parquet
from zoo.data.formats.text import Cells, Encoding, as_utf8, encoding_of, unless_ansi
from zoo.data.formats.unpack import HEAD_BYTES, unpacked
from zoo.errors import ZooError

LOOK = 8  # lines below the first


@contextmanager
def open_cells(path: Path, known: Callable[[str], bool]) -> Iterator[Cells]:
    """The columns and rows of a file of any format that is read.

    The format is told by the content and not by the name. `known`: whether a name is of a column that the caller looks for, by
    which a CSV file's separator is found. ZooError, with what the file is and the mend, for any other format.
    """
    found, encoding = _what(path)
    with unpacked(path) as (stream, packing):
        if found == PARQUET:  # has its index at the end
            content = stream if not packing else io.BytesIO(stream.read())
            size = path.stat().st_size if not packing else len(content.getbuffer())  # type: ignore[attr-defined]
            cells = read_parquet(content, path, size)
        elif found == JSONL:
            cells = read_jsonl(stream, path, encoding)
        elif found == JSON_LIST:
            cells = read_json_list(stream, path, encoding)
        else:
            cells = read_delimited(stream, path, encoding, known)
        yield replace(cells, how=f"{cells.how}, {packing}") if packing else cells


def read_records(path: Path, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows of a file of any format, by number from 1, as cells by column.

    Of the columns in `names`, those that it has. A line of JSONL that is no object is the text of what is wrong with it; in
    other formats that is a ZooError, since there one broken row makes a guess of those that follow.
    """
    found, encoding = _what(path)
    if found == JSONL or (found != PARQUET and _follow_objects(path, encoding)):
        with unpacked(path) as (stream, _):
            yield from objects_of(stream, path, encoding)
        return
    with open_cells(path, set(names).__contains__) as cells:
        own = [name for name in names if name in cells.header]
        for number, (row, _) in enumerate(cells.rows(own), start=1):
            yield number, dict(zip(own, row, strict=True))


def _what(path: Path) -> tuple[str, Encoding]:
    """Format and encoding of a file; ZooError for a format that is not read."""
    with unpacked(path) as (stream, _):
        head = stream.read(HEAD_BYTES)
    encoding = encoding_of(head)
    found = format_of(head, as_utf8(head, encoding))
    if isinstance(found, Unread):
        raise ZooError(f"{path}: {found.name}; {found.mend}")
    if found != PARQUET:
        with unpacked(path) as (stream, _):
            encoding = unless_ansi(stream, encoding)
    return found, encoding


def _follow_objects(path: Path, encoding: Encoding) -> bool:
    """Whether objects follow a first line that is none, each on a line of its own: JSONL with a bad first line."""
    with unpacked(path) as (stream, _):
        following = [record for _, record in islice(objects_of(stream, path, encoding), 1, 1 + LOOK)]
    return sum(isinstance(record, dict) for record in following) > len(following) / 2
