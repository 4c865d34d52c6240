"""Disk use of a home: bytes by kind, entry and stage, shared blocks counted once."""

from __future__ import annotations

import array
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zoo.store.artifacts import APART, ASIDE, FRAMES, INCOMING, JOBS, PARTIAL, TRUTH
from zoo.store.garbage import JUDGED, Garbage, find_garbage
from zoo.store.removal import TRASH, manifest_stage
from zoo.store.verify import artifact_folders
from zoo.store.written import WRITTEN

# linux/fs.h and linux/fiemap.h: a file's extents on disk, and which of them other files share.
# Of a store, the folders that hold no artifact.
IN_STORE = {
    JOBS: "jobs",
    WRITTEN: "notes of written files",
    TRUTH: "labels kept for leaderboards",
    APART: "manifests from elsewhere",
}
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_SHARED = 0x1, 0x2000
FIEMAP_HEAD, FIEMAP_EXTENT, EXTENTS = "=QQIIII", "=QQQQQIIII", 256

Shared = set[tuple[int, int]]  # of a device, the place of each shared block that was counted


@dataclass(frozen=True)
class Use:
    """Bytes on disk of one kind, for artifacts by entry and stage.

    `reclaimable`: what `zoo gc` would remove of them.
    """

    kind: str
    entry: str
    stage: str
    items: int
    bytes: int
    reclaimable: int


class Ledger:
    """Bytes on disk of files, each block once.

    Hard links and shared extents belong to whoever comes first.
    """

    def __init__(self) -> None:
        self._files: set[tuple[int, int]] = set()
        self._blocks: dict[int, list[tuple[int, int]]] = {}

    def bytes_of(self, path: Path) -> int:
        """Bytes of a file, or of all below a folder, that were not counted before.

        Links are not followed.
        """
        if path.is_dir() and not path.is_symlink():
            return sum(self._file_bytes(Path(at) / name) for at, _, names in os.walk(path) for name in names)
        return self._file_bytes(path)

    def _file_bytes(self, path: Path) -> int:
        try:
            status = path.lstat()
        except OSError:  # removed meanwhile
            return 0
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in self._files:
            return 0
        if status.st_nlink > 1:
            self._files.add((status.st_dev, status.st_ino))
        known = self._blocks.setdefault(status.st_dev, [])
        counted = sum(overlap_and_add(known, begin, length) for begin, length in shared_extents(path))
        return max(0, status.st_blocks * 512 - counted)


def overlap_and_add(known: list[tuple[int, int]], begin: int, length: int) -> int:
    """How many bytes of a span lie in known ones; it is added to them.

    `known`: (begin, end) pairs, sorted and disjoint.
    """
    end, counted, merged_begin, merged_end = begin + length, 0, begin, begin + length
    rest = []
    for left, right in known:
        if right < begin or left > end:
            rest.append((left, right))
            continue
        counted += max(0, min(right, end) - max(left, begin))
        merged_begin, merged_end = min(merged_begin, left), max(merged_end, right)
    known[:] = sorted([*rest, (merged_begin, merged_end)])
    return counted


def shared_extents(path: Path) -> Iterator[tuple[int, int]]:
    """Place and length on disk of a file's extents that other files share (reflinks).

    None where the file system has no such thing or does not say.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            yield from _extents(descriptor)
        finally:
            os.close(descriptor)


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    head, one = struct.calcsize(FIEMAP_HEAD), struct.calcsize(FIEMAP_EXTENT)
    start = 0
    while True:
        buffer = array.array("B", struct.pack(FIEMAP_HEAD, start, 2**64 - 1 - start, 0, 0, EXTENTS, 0) + bytes(one * EXTENTS))
        fcntl.ioctl(descriptor, FS_IOC_FIEMAP, buffer)
        mapped = struct.unpack_from(FIEMAP_HEAD, buffer)[3]
        flags = FIEMAP_EXTENT_LAST
        for number in range(mapped):
            logical, physical, length, _, _, flags, *_ = struct.unpack_from(FIEMAP_EXTENT, buffer, head + number * one)
            start = logical + length
            if flags & FIEMAP_EXTENT_SHARED:
                yield physical, length
        if flags & FIEMAP_EXTENT_LAST:
            return


def disk_use(home: Path, *, days: float, more: Sequence[Garbage] = ()) -> list[Use]:
    """What lies in a home, the largest first.

    `days` as `zoo gc` takes them, `more` what it removes of MLflow's files.
    """
    ledger, waste = Ledger(), {item.path: item.bytes for item in (*find_garbage(home, days=days), *more)}
    rows: dict[tuple[str, str, str], list[int]] = {}
    for path, key in _items(home):
        row = rows.setdefault(key, [0, 0, 0])
        size = ledger.bytes_of(path)
        wasted = sum(amount for place, amount in waste.items() if place.is_relative_to(path))
        for place, amount in enumerate((1, size, min(size, wasted))):
            row[place] += amount
    uses = [Use(*key, *numbers) for key, numbers in rows.items()]
    return sorted(uses, key=lambda use: (-use.bytes, use.kind, use.entry, use.stage))


def _items(home: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Everything in a home once, with its kind, entry and stage."""
    for kind, store in (("artifact", home / "store"), ("measured sample", home / "cost")):
        folders = artifact_folders(store)
        for path in folders:
            stage, entry = manifest_stage(path)
            yield path, (kind, entry, stage)
        for folder, name in ((PARTIAL, "unfinished"), (INCOMING, "arriving"), (ASIDE, "set aside"), (TRASH, "trash")):
            for path in sorted((store / folder).glob("*")):
                yield path, (name, "", path.name.rpartition("-")[0])
        for path in sorted(store.glob("*")):
            if path not in folders and path.name not in (PARTIAL, INCOMING, ASIDE, TRASH):
                yield path, (IN_STORE.get(path.name, "other"), "", "")
    for path in sorted(home.glob("*")):
        if path.name in ("store", "cost"):
            continue
        inside = {"predict": "prediction's work", TRASH: "trash", "artifacts": "runs' files"}.get(path.name)
        if inside and path.is_dir():
            for item in sorted(path.glob("*/*") if path.name == "artifacts" else path.glob("*")):
                yield item, ("trash" if TRASH in (item.name, item.parent.name) else inside, "", "")
            continue
        yield path, (_kind(path.name), "", "")


def _kind(name: str) -> str:
    if name.startswith("mlflow.db.broken-"):
        return "broken database, kept aside"
    if name.startswith("mlflow.db"):
        return "database"
    return {
        "builds": "kept builds",
        FRAMES: "frames from Python",
        JUDGED: "lists of judged pairs",
        "predictions": "kept predictions",
        "studies.db": "studies",
        "wheels": "wheels of bundles",
    }.get(name, "other")
