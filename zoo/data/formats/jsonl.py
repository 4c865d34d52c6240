"""JSON: one object a line, or one list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from zoo.data.formats.text import MOST_LINE_CHARACTERS, Cells, Encoding, Row, lines_of, text_of
from zoo.errors import ZooError

PIECE = 2**20  # characters that are read at once of a list, which may be one line
_BETWEEN = re.compile(r"[ \t\r\n,]*")


def read_jsonl(stream: BinaryIO, path: Path, encoding: Encoding) -> Cells:
    """A file of JSON objects; its columns are all their keys, in the order of their first line.

    ZooError, with the line's number, for a line that is none: it has no id, so no submission for the file could be keyed.
    """
    numbered = enumerate(lines_of(stream, path, encoding), start=1)
    objects = (_object(line, path, number) for number, line in numbered if line.strip())
    return _cells(objects, f"JSONL, {encoding.name}")


def objects_of(stream: BinaryIO, path: Path, encoding: Encoding) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each line's number with its object, or with what is wrong with it.

    For files in which bad lines are to be expected.
    """
    with text_of(stream, path, encoding) as text:
        number = 0
        while line := text.readline(MOST_LINE_CHARACTERS + 1):
            number += 1
            if len(line) > MOST_LINE_CHARACTERS:
                while line and line[-1] not in "\r\n":  # the rest of it
                    line = text.readline(MOST_LINE_CHARACTERS + 1)
                yield number, f"a line of more than {MOST_LINE_CHARACTERS:,} characters"
            elif line.strip():
                try:
                    yield number, _object(line, path, number)
                except ZooError as error:
                    yield number, str(error).removeprefix(f"{path}: line {number}: ").split("; ")[0]


def read_json_list(stream: BinaryIO, path: Path, encoding: Encoding) -> Cells:
    """A file of one JSON list of objects, as `read_jsonl` has it.

    An error names an item by its number.
    """
    return _cells(_items(stream, path, encoding), f"a JSON list, {encoding.name}")


def _cells(found: Iterable[dict[str, Any]], how: str) -> Cells:
    objects = list(found)
    header = list(dict.fromkeys(key for item in objects for key in item))

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for item in objects:
            yield [item.get(name) for name in names], len(header)

    return Cells(header, rows, how)


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line, strict=False)
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{path}: line {number}: undecodable JSON ({_reason(error)}); give one whole object a line") from None
    if not isinstance(found, dict):
        raise ZooError(f"{path}: line {number}: JSON, but not an object; give one object a line, with the columns as keys")
    return found


def _items(stream: BinaryIO, path: Path, encoding: Encoding) -> Iterator[dict[str, Any]]:
    """The objects of a list, of which none may be larger than a line may be.

    They are decoded as they are read, so that no more than the objects themselves is held.
    """
    decoder, number = json.JSONDecoder(strict=False), 1
    with text_of(stream, path, encoding) as text:
        held = text.read(PIECE)
        place = held.index("[") + 1
        while True:
            between = _BETWEEN.match(held, place)
            place = between.end() if between else place
            if held.startswith("]", place):
                if (held[place + 1 :] + text.read(PIECE)).strip():
                    raise ZooError(f"{path}: more than one JSON list; give a single list, or an object a line")
                return
            try:
                found, end = decoder.raw_decode(held, place)
            except (ValueError, RecursionError) as error:
                more = text.read(max(PIECE, len(held) - place)) if len(held) - place <= MOST_LINE_CHARACTERS else ""
                if not more:
                    raise ZooError(
                        f"{path}: item {number}: undecodable JSON ({_reason(error)}); give one whole list of objects"
                    ) from None
                held, place = held[place:] + more, 0
                continue
            if not isinstance(found, dict):
                raise ZooError(f"{path}: item {number}: JSON, but not an object; give objects, with the columns as keys")
            yield found
            place, number = end, number + 1


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
