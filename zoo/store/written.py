"""Which artifact wrote a file: notes by digest.

For files that leave the store and come back by path.

A stage that is given such a file knows its digest alone. `<store>/.written/DIGEST.json` says which artifacts have that content
and what each was asked, so that the chain can be followed after the file was moved, and past an artifact that was removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.store.artifacts import Artifact
from zoo.store.files import write_atomic

WRITTEN = ".written"  # folder of the store


@dataclass(frozen=True)
class Writer:
    """An artifact that wrote a file.

    Its name, what it was asked as JSON, and when it was finished.
    """

    artifact: str
    request: dict[str, Any]
    created_at: str


@dataclass(frozen=True)
class Written:
    """A file that was put outside the store: its name of then, and who wrote it.

    The first writer stays, others are added.
    """

    digest: str
    file: str
    writers: tuple[Writer, ...]


def note_written(store: Path, digests: Iterable[str], file: Path, artifacts: Sequence[Artifact]) -> None:
    """Note of what artifacts a file consists, under each digest by which a stage may know it."""
    for digest in digests:
        earlier = find_written(store, digest)
        writers = {writer.artifact: writer for writer in earlier.writers} if earlier else {}
        new = [_writer(artifact) for artifact in artifacts if artifact.path.name not in writers]
        if earlier and not new:
            continue
        every = [*writers.values(), *new]
        record = {"digest": digest, "file": file.name, "writers": [writer.__dict__ for writer in every]}
        path = store / WRITTEN / f"{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(record, indent=1))


def find_written(store: Path, digest: str) -> Written | None:
    """The note of a digest; None where there is none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((store / WRITTEN / f"{digest}.json").read_bytes())
        writers = tuple(Writer(str(w["artifact"]), dict(w["request"]), str(w["created_at"])) for w in record["writers"])
        return Written(str(record["digest"]), str(record["file"]), writers)
    return None


def _writer(artifact: Artifact) -> Writer:
    manifest = artifact.manifest
    request = manifest.request.model_dump(mode="json")
    return Writer(artifact.path.name, request, manifest.created_at.isoformat(timespec="seconds"))
