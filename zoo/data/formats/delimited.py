"""CSV with commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from zoo.data.formats.text import MOST_LINE_CHARACTERS, Cells, Encoding, Row, lines_of
from zoo.errors import ZooError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAID = re.compile(r"""["']?sep=([^"'\w])["']?\s*""")  # Excel's first line, which says the separator

_REASONS = {"unexpected end of data": "the file ends inside quotes, so it is cut off or a quote is missing"}
_MEND = 'give the whole file, quote fields with " and double the quotes inside'


def read_delimited(stream: BinaryIO, path: Path, encoding: Encoding, known: Callable[[str], bool]) -> Cells:
    """A CSV file, whatever its separator.

    It is the one that splits the first line into the most names that are `known`, or what a line `sep=;` above the header says.
    Quotes that are not closed, or that text stands behind, are a ZooError: read on, they make one row of several.
    """
    csv.field_size_limit(MOST_LINE_CHARACTERS)  # the default refuses fields above 128 KiB
    lines = lines_of(stream, path, encoding)
    first = next(lines, "")
    said = _SAID.fullmatch(first)
    if said:
        first = next(lines, "")
    separator = said[1] if said else max(SEPARATORS, key=lambda mark: sum(map(known, _names(first, mark))))
    reader = _rows(chain([first], lines), path, separator, above=int(bool(said)))
    header = [name.strip() for name in next(reader, (0, []))[1]]

    def rows(names: Sequence[str]) -> Iterator[Row]:
        places = [header.index(name) for name in names]
        for line, row in reader:
            if row:
                _check_swallowed(row, len(header), path, line)
                yield [row[place] if place < len(row) else None for place in places], len(row)

    return Cells(header, rows, f"CSV, {SEPARATORS.get(separator, repr(separator))}, {encoding.name}")


def _names(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _rows(lines: Iterator[str], path: Path, separator: str, above: int) -> Iterator[tuple[int, list[str]]]:
    """Rows of fields, each with the line that it begins in; `above`: how many lines were read before."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    start = above + 1
    try:
        for row in reader:
            yield start, row
            start = above + reader.line_num + 1
    except csv.Error as error:
        reason = _REASONS.get(str(error), str(error))
        raise ZooError(
            f"{path}: not whole CSV: in the row from line {start} to {above + reader.line_num}, {reason}; {_MEND}"
        ) from error


def _check_swallowed(row: Sequence[str], fields: int, path: Path, line: int) -> None:
    """ZooError for a row of another number of fields that goes over several lines, for it may hold others.

    Of one line it is a row that cannot be used, and no other is lost.
    """
    if len(row) != fields and any("\n" in field or "\r" in field for field in row):
        raise ZooError(
            f"{path}: not whole CSV: the row from line {line} on has {len(row)} fields, the header {fields}, and it holds "
            f"line breaks: a quote is missing, or the file is cut off; {_MEND}"
        )
