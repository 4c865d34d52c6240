"""Lines of a plain or gzipped text file, within bounds.

A file that unpacks without end is refused and never held in memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from zoo.errors import ZooError
from zoo.reading import check_ordinary

MOST_LINE_CHARACTERS = 2**26  # far above any battle; a file without line breaks is one line
MOST_RATIO = 100  # characters a compressed byte: what people wrote has 2 to 10, a bomb 1,000
LEAST_BOUND = 2**25  # characters that any compressed file may unpack to


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[str]]:
    """Lines of a file, gzipped or plain as its first bytes say, with their line breaks.

    Bytes that are not UTF-8 come out as lone surrogates. Reading on raises ZooError where a line, or what a compressed file
    unpacks to, is larger than battles ever are.
    """
    check_ordinary(path, mend="give a .csv or .csv.gz file")
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    with gzip.open(path, "rt", **options) if zipped else path.open("r", **options) as text:
        most = max(LEAST_BOUND, MOST_RATIO * path.stat().st_size) if zipped else None
        yield _bounded(text, path, most)


def _bounded(text: TextIO, path: Path, most: int | None) -> Iterator[str]:
    characters = 0
    while line := text.readline(MOST_LINE_CHARACTERS + 1):
        if len(line) > MOST_LINE_CHARACTERS:
            raise ZooError(
                f"{path}: a line of more than {MOST_LINE_CHARACTERS:,} characters; give a CSV of battles, a row a line"
            )
        characters += len(line)
        if most is not None and characters > most:
            raise ZooError(
                f"{path}: unpacks to more than {most:,} characters, which is no text; if it is one, unpack it and give the .csv"
            )
        yield line
