"""Lineages by the names that people give: members, artifacts, and files."""

from __future__ import annotations

from pathlib import Path

from zoo.data.battles import dataset_digest, read_battles
from zoo.errors import ZooError
from zoo.scores.named import artifacts_named
from zoo.store import Artifact, Given, Made, file_sha256, lineage, lineage_of_file, read_manifest


def lineage_of(store: Path, name: str, path: Path) -> list[Made | Given]:
    """What a name's artifacts, or the file at `path`, were made from.

    ZooError where neither is known.
    """
    if path.is_file():
        return [lineage_of_made_file(store, path)]
    return [lineage(store, Artifact(folder, read_manifest(folder))) for folder in artifacts_named(store, [name])]


def lineage_of_made_file(store: Path, path: Path) -> Given:
    """Who wrote a file.

    Found by its bytes, or by the battles in it, whose order and format do not matter.
    """
    found = lineage_of_file(store, path, file_sha256(path)[:16])
    if found.made_by:
        return found
    try:
        battles = dataset_digest(read_battles(path))
    except ZooError:
        return found
    return lineage_of_file(store, path, found.digest, battles)
