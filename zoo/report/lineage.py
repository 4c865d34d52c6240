"""What an artifact or a file was made from, as a tree for people and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.report.text import Cell, Column, Page, Table
from zoo.store import Given, Made

ELSEWHERE, REMOVED = "not made here", "removed; its note is left"


def lineage_page(roots: list[Made | Given]) -> Page:
    """A line an artifact and a line an input, each below what it went into."""
    columns = [
        Column("what"),
        Column("artifact or digest", "digest"),
        Column("file or entry", "file", drop=1, prose=True),
        Column("made", drop=2),
        Column("mind", prose=True),
    ]
    return [Table(columns, [row for root in roots for row in _rows(root, 0)])]


def _rows(node: Made | Given, depth: int) -> Iterator[list[Cell]]:
    indent = "  " * depth
    if isinstance(node, Given):
        yield [f"{indent}{node.what}", node.digest[:16], node.file or None, None, None if node.made_by else ELSEWHERE]
        for made in node.made_by:
            yield from _rows(made, depth + 1)
        return
    mind = "told above" if node.known else REMOVED if node.artifact is None else None
    yield [f"{indent}{node.stage}", node.name, node.entry, node.created_at[:16].replace("T", " "), mind]
    for given in () if node.known else node.given:
        if len(given.made_by) == 1 and not given.file:  # an artifact itself: one line says both
            first, *rest = _rows(given.made_by[0], depth + 1)
            yield [f"{'  ' * (depth + 1)}{given.what}: {given.made_by[0].stage}", *first[1:]]
            yield from rest
        else:
            yield from _rows(given, depth + 1)


def lineage_record(node: Made | Given) -> dict[str, Any]:
    """The same as nested data."""
    if isinstance(node, Given):
        made_by = [lineage_record(made) for made in node.made_by]
        return {"what": node.what, "digest": node.digest, "file": node.file, "made_by": made_by}
    return {
        "artifact": node.name,
        "stage": node.stage,
        "entry": node.entry,
        "created_at": node.created_at,
        "removed": node.artifact is None,
        **({"told_above": True} if node.known else {"from": [lineage_record(given) for given in node.given]}),
    }
