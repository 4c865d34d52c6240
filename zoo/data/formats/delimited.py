"""CSV with commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from zoo.data.formats.text import MOST_LINE_CHARACTERS, Cells, Encoding, Row, lines_of
from zoo.errors import ZooError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def read_delimited(stream: BinaryIO, path: Path, encoding: Encoding, known: Callable[[str], bool]) -> Cells:
    """A CSV file, whatever its separator.

    It is the one that splits the first line into the most names that are `known`.
    """
    csv.field_size_limit(MOST_LINE_CHARACTERS)  # the default refuses fields above 128 KiB
    lines = lines_of(stream, path, encoding)
    first = next(lines, "")
    separator = max(SEPARATORS, key=lambda mark: sum(map(known, _names(first, mark))))
    reader = _refusing(csv.reader(chain([first], lines), delimiter=separator), path)
    header = [name.strip() for name in next(reader, [])]

    def rows(names: Sequence[str]) -> Iterator[Row]:
        places = [header.index(name) for name in names]
        for row in reader:
            if row:
                yield [row[place] if place < len(row) else None for place in places], len(row)

    return Cells(header, rows, f"CSV, {SEPARATORS[separator]}, {encoding.name}")


def _names(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _refusing(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ZooError(f'{path}: not a CSV file ({error}); quote fields with " and double the quotes inside') from error
