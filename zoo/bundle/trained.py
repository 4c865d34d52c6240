"""What a notebook trained, as one archive: adapters, and checkpoints to go on from.

The archive is a plain tar: `trained.json` first, then the folders of the store that it names. It comes back from a machine of
somebody else's, so it is checked like any other file: names, kinds of files, every SHA-256.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from zoo.contracts import SCHEMA_VERSION, Contract, first_fault
from zoo.errors import ZooError
from zoo.store import MANIFEST, PARTIAL, REQUEST, locked, replacing, scratch_folder, set_aside, verify_artifacts

ARCHIVE = "trained.tar"
CONTENTS = "trained.json"  # the archive's first member, and beside it for people
# What training leaves; anything else, a pickle or a script, has no place in an artifact.
SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".log", ".md", ".png"})
MOST_CONTENTS_BYTES = 1 << 20


class TrainedFold(Contract):
    """A fold of an entry: its artifact, and how far its training came."""

    fold: Annotated[int, Field(ge=0)]
    artifact: Annotated[str, Field(pattern=r"^train-[0-9a-f]{16}$")]
    finished: bool
    steps: Annotated[int, Field(ge=0)] | None = Field(None, description="of its last checkpoint, where it is not finished")


class Trained(Contract):
    """`trained.json`: what is in an archive."""

    schema_version: int = SCHEMA_VERSION
    entry: str
    created_at: datetime
    folds: tuple[TrainedFold, ...]

    @property
    def finished(self) -> tuple[TrainedFold, ...]:
        return tuple(fold for fold in self.folds if fold.finished)


def folder_of(store: Path, fold: TrainedFold) -> Path:
    """Where a fold's artifact, or what there is of it, lies in a store."""
    return store / fold.artifact if fold.finished else store / PARTIAL / fold.artifact


def pack(trained: Trained, store: Path, archive: Path) -> None:
    """Write the archive of these folds, whole or not at all.

    Without a user's name, without links.
    """
    with replacing(archive) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        text = trained.model_dump_json(indent=1).encode()
        record = tarfile.TarInfo(CONTENTS)
        record.size = len(text)
        tar.addfile(record, BytesIO(text))
        for fold in trained.folds:
            folder = folder_of(store, fold)
            for path in _packed(folder):
                tar.add(path, f"{fold.artifact}/{path.relative_to(folder).as_posix()}", recursive=False, filter=_anonymous)


def _packed(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink() and path.suffix in SUFFIXES)


def _anonymous(record: tarfile.TarInfo) -> tarfile.TarInfo:
    record.uid = record.gid = 0
    record.uname = record.gname = ""
    record.mode = 0o644
    return record


def read_contents(archive: Path) -> Trained:
    """What an archive says it holds; ZooError where it is none."""
    try:
        with tarfile.open(archive, "r:") as tar:
            record = tar.next()
            if record is None or record.name != CONTENTS or not record.isfile() or record.size > MOST_CONTENTS_BYTES:
                raise ZooError(f"{archive}: its first file is not {CONTENTS}; give the {ARCHIVE} that the notebook left")
            text = tar.extractfile(record)
            assert text is not None
            return Trained.model_validate_json(text.read())
    except ValidationError as error:
        raise ZooError(f"{archive}: {CONTENTS}: {first_fault(error)}") from error
    except (OSError, tarfile.TarError) as error:
        raise ZooError(f"{archive}: not an archive that can be read ({error}); download the notebook's output again") from error


def unpack(archive: Path, store: Path) -> tuple[Trained, list[Path]]:
    """Put what an archive holds into a store; its contents, and the folders that are new there.

    Finished folds are checked as `zoo verify` checks and appear by one rename; an artifact that is there stays. Of a fold that
    is not finished its checkpoint is put where training goes on from it, unless something is there already. ZooError, with
    nothing put into the store, where the archive holds what it does not name, or a file is not as its manifest says.
    """
    trained = read_contents(archive)
    store.mkdir(parents=True, exist_ok=True)
    new = []
    with scratch_folder(store / PARTIAL / f"unbundle-{archive.stem}") as scratch:
        _extract(archive, trained, scratch)
        for fold in trained.folds:
            _check(archive, fold, scratch / fold.artifact)
        for fold in trained.folds:
            place = folder_of(store, fold)
            with locked(store, fold.artifact):
                if (store / fold.artifact / MANIFEST).exists() or (place.exists() and not fold.finished):
                    continue
                if fold.finished:
                    set_aside(place)
                    shutil.rmtree(store / PARTIAL / fold.artifact, ignore_errors=True)
                (scratch / fold.artifact).rename(place)
                new.append(place)
    return trained, new


def _extract(archive: Path, trained: Trained, scratch: Path) -> None:
    """The archive's files below the folders that it names, nothing else."""
    known = {fold.artifact for fold in trained.folds}
    try:
        with tarfile.open(archive, "r:") as tar:
            for record in tar:
                if record.name == CONTENTS:
                    continue
                top, _, below = record.name.partition("/")
                if top not in known or not below or not record.isfile() or Path(below).suffix not in SUFFIXES:
                    raise ZooError(
                        f"{archive}: holds {record.name!r}, which is no file of a training; nothing was taken from it"
                    )
                tar.extract(record, scratch, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise ZooError(f"{archive}: {error}; download the notebook's output again") from error


def _check(archive: Path, fold: TrainedFold, folder: Path) -> None:
    if not (folder / (MANIFEST if fold.finished else REQUEST)).is_file():
        raise ZooError(f"{archive}: fold {fold.fold} is not whole in it; download the notebook's output again")
    if fold.finished and (fault := next(iter(verify_artifacts([folder])), None)):
        raise ZooError(f"{archive}: fold {fold.fold}: {fault.what}; download the notebook's output again")
