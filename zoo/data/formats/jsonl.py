"""JSONL: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from zoo.data.formats.text import Cells, Encoding, Row, lines_of
from zoo.errors import ZooError


def read_jsonl(stream: BinaryIO, path: Path, encoding: Encoding) -> Cells:
    """A file of JSON objects; its columns are all their keys, in the order of their first line.

    ZooError, with the line's number, for a line that is none: it has no id, so no submission for the file could be keyed.
    """
    numbered = enumerate(lines_of(stream, path, encoding), start=1)
    objects = [_object(line, path, number) for number, line in numbered if line.strip()]
    header = list(dict.fromkeys(key for found in objects for key in found))

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for found in objects:
            yield [found.get(name) for name in names], len(header)

    return Cells(header, rows, f"JSONL, {encoding.name}")


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line, strict=False)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ZooError(f"{path}: line {number}: undecodable JSON ({reason}); give one whole object a line") from None
    if not isinstance(found, dict):
        raise ZooError(f"{path}: line {number}: JSON, but not an object; give one object a line, with the columns as keys")
    return found
