"""Garbage of a home: what no command goes on with, and its removal."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from zoo.store.artifacts import ASIDE, ERROR, INCOMING, JOBS, MANIFEST, PARTIAL
from zoo.store.files import if_free, is_held, lock_file
from zoo.store.leases import LEASES, living
from zoo.store.removal import discard, stores, trash

DAYS = 14.0  # a killed run or prediction that nobody went on with for so long is taken for given up
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")  # of `zoo.store.replacing`
TEMPORARY_SECONDS = 3600.0  # a write takes seconds: what is older was left by a killed process
JUDGED = "judged"  # folder of the home: which pairs `zoo data judge` asked of each model
KEPT_WORK = ("checkpoint*", "*/chunks/*.parquet")  # hours of work that a run would go on from


@dataclass(frozen=True)
class Garbage:
    """Something to remove: its bytes on disk, the reason, and the lock of its users.

    `reason`: looks again why it is garbage; empty where it is none any more.
    """

    path: Path
    bytes: int
    why: str
    lock: Path | None = None
    reason: Callable[[], str] | None = field(default=None, compare=False)


def find_garbage(home: Path, *, days: float = DAYS) -> list[Garbage]:
    """What can go from a home; what a running process holds is no garbage.

    `days` without a change make an unfinished run or a prediction's work garbage. Broken databases that were kept aside are
    never.
    """
    found = [item for store in stores(home) for item in _of_store(store, days)]
    found += _predictions(home, days)
    found += _judged(home, days)
    found += [_item(path, "a removal that was cut short") for path in trash(home)]
    inside = [item.path for item in found]
    for path in _temporary_files(home):
        if not any(path.is_relative_to(folder) for folder in inside):
            found.append(_item(path, "temporary file of a killed process"))
    return [item for item in found if item.lock is None or not is_held(item.lock)]


def collect(item: Garbage, home: Path) -> bool:
    """Remove one piece of garbage.

    False where a process has taken it up or removed it since it was found.
    """
    if not item.path.exists() and not item.path.is_symlink():  # a lock in it would be made again
        return False
    with suppress(FileNotFoundError):  # another removal was first
        if item.lock is None:
            if item.reason is not None and not item.reason():
                return False
            discard(item.path, home)
            return True
        with if_free(item.lock) as free:
            if free and (item.reason is None or item.reason()):
                discard(item.path, home)
                return True
    return False


def _of_store(store: Path, days: float) -> Iterator[Garbage]:
    for path in sorted((store / PARTIAL).glob("*")):
        reason = partial(_unfinished, store, path, days)
        if why := reason():
            yield _item(path, why, lock_file(store, path.name), reason)
    for path in sorted((store / INCOMING).glob("*")):
        arriving = partial(_unfinished, store, path, days)
        if why := arriving():
            yield _item(path, why, lock_file(store, path.name), arriving)
    for path in sorted((store / JOBS).glob("*")):
        left = partial(_left, path, days)
        if why := left():
            yield _item(path, why, reason=left)
    for path in sorted((store / ASIDE).glob("*")):
        yield _item(path, "set aside: it had no manifest")


def _unfinished(store: Path, path: Path, days: float) -> str:
    """Why a folder in which a stage worked is garbage; empty where it is none."""
    if not path.is_dir():
        return ""
    if (store / path.name / MANIFEST).exists():
        return "left over: its artifact is finished"
    if _refused(path) and not any(any(path.glob(pattern)) for pattern in KEPT_WORK):
        return "refused settings: nothing was made"
    return f"unfinished for {age:.0f} days" if (age := _days(path)) >= days else ""


def _predictions(home: Path, days: float) -> Iterator[Garbage]:
    """Work folders of predictions: their submissions lie elsewhere, whole."""
    for path in sorted(path for path in (home / "predict").glob("[!.]*") if path.is_dir()):
        reason = partial(_unused, path, days)
        if why := reason():
            yield _item(path, why, path / "lock", reason)


def _unused(path: Path, days: float) -> str:
    age = _days(path)
    return f"a prediction's work, unused for {age:.0f} days" if path.is_dir() and age >= days else ""


def _judged(home: Path, days: float) -> Iterator[Garbage]:
    """Which pairs judges were asked: the same command writes its lists again, and its score tables do without them."""
    for path in sorted((home / JUDGED).glob("[!.]*")):
        if (age := _days(path)) >= days:
            yield _item(path, f"a list of judged pairs, unused for {age:.0f} days")


def _left(job: Path, days: float) -> str:
    """Why a job's folder is garbage; empty where workers are at it, however few days are asked for."""
    if not job.is_dir() or living(job / LEASES):
        return ""
    age = _days(job, stat.S_ISREG)  # who only looks changes folders: `living` has a file made and removed
    return f"a job that nobody was at for {age:.0f} days; what it made stays" if age >= days else ""


def _refused(partial: Path) -> bool:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads((partial / ERROR).read_text())["known"])
    return False


def _temporary_files(home: Path) -> Iterator[Path]:
    oldest = time.time() - TEMPORARY_SECONDS
    for at, _, names in os.walk(home):
        for name in names:
            path = Path(at) / name
            with suppress(OSError):
                if TEMPORARY.fullmatch(name) and path.lstat().st_mtime < oldest:
                    yield path


def _files(path: Path) -> Iterator[os.stat_result]:
    paths = [path] if not path.is_dir() or path.is_symlink() else [path, *path.rglob("*")]
    for each in paths:
        with suppress(OSError):
            yield each.lstat()


def disk_bytes(path: Path) -> int:
    """Bytes on disk of a file, or of all files below a folder; links are not followed."""
    return sum(status.st_blocks * 512 for status in _files(path) if stat.S_ISREG(status.st_mode))


def _days(path: Path, of: Callable[[int], bool] = lambda _: True) -> float:
    """Days since anything in a folder changed, or of its files of a kind (`stat.S_ISREG`)."""
    return (time.time() - max((status.st_mtime for status in _files(path) if of(status.st_mode)), default=0.0)) / 86400


def _item(path: Path, why: str, lock: Path | None = None, reason: Callable[[], str] | None = None) -> Garbage:
    return Garbage(path, disk_bytes(path), why, lock, reason)
