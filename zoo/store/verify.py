"""Verify a store: artifacts' files against their manifests, and what lies beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import ZooError
from zoo.store.artifacts import ASIDE, INCOMING, MANIFEST, PARTIAL, file_fault, fingerprint, read_manifest, recorded_files
from zoo.store.files import is_held, lock_file


@dataclass(frozen=True)
class Fault:
    """What is wrong with an artifact (`fail`), or what lies in the store and is none (`warn`)."""

    artifact: str
    verdict: Literal["fail", "warn"]
    what: str
    mend: str


def artifact_folders(store: Path) -> list[Path]:
    """Whatever lies in a store under an artifact's name, by name: finished, half or unreadable."""
    return sorted(path for path in store.glob("[!.]*") if path.is_dir() or path.is_symlink())


def bytes_to_hash(folders: Sequence[Path]) -> int:
    """Bytes of the files that these artifacts' manifests record."""
    total = 0
    for folder in folders:
        with suppress(ZooError):
            total += sum(record.bytes for record in read_manifest(folder).files.values())
    return total


def verify_artifacts(folders: Sequence[Path], *, read: Callable[[int], object] = lambda _: None) -> Iterator[Fault]:
    """What is wrong with these artifacts: manifests, sizes, SHA-256, missing and extra files.

    `read` is told how many bytes more are done with.
    """
    for folder in folders:
        yield from _artifact_faults(folder, read)


def leftovers(store: Path) -> Iterator[Fault]:
    """What no run works on any more: unfinished folders, and what was set aside."""
    for path in sorted((store / PARTIAL).glob("*")):
        if is_held(lock_file(store, path.name)):
            continue
        if (store / path.name / MANIFEST).exists():
            yield Fault(f"{PARTIAL}/{path.name}", "warn", "left over: its artifact is finished", "zoo gc")
        else:
            mend = "the command that made it goes on from there; `zoo gc --days 0` removes it"
            yield Fault(f"{PARTIAL}/{path.name}", "warn", "unfinished, and no process works on it", mend)
    for path in sorted((store / INCOMING).glob("*")):
        if not is_held(lock_file(store, path.name)):
            mend = "`zoo pull` goes on from there; `zoo gc --days 0` removes it"
            yield Fault(f"{INCOMING}/{path.name}", "warn", "half arrived, and no process fetches it", mend)
    for path in sorted((store / ASIDE).glob("*")):
        yield Fault(f"{ASIDE}/{path.name}", "warn", "set aside: it had no manifest", "zoo gc")


def _artifact_faults(folder: Path, read: Callable[[int], object]) -> Iterator[Fault]:
    def fail(what: str, mend: str = "") -> Fault:
        again = f"`zoo rm {folder.name}`, then the command that made it"
        return Fault(folder.name, "fail", what, mend or again)

    if not (folder / MANIFEST).exists():
        yield fail("has no manifest: not a finished artifact", "the command that makes it sets it aside; or remove the folder")
        return
    try:
        manifest = read_manifest(folder)
    except ZooError as error:
        if "upgrade" in str(error):
            yield fail("its manifest is of a newer version of this package", "upgrade this package")
        else:
            yield fail(str(error).partition(": ")[2].partition("; ")[0])
        return
    wanted = fingerprint(manifest.request)
    if folder.name != f"{manifest.stage}-{wanted}" or manifest.fingerprint != wanted:
        yield fail(f"its request is that of {manifest.stage}-{wanted}: the folder was renamed, or its manifest edited")
    for name, record in manifest.files.items():
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            read(size)

        state = file_fault(folder / name, record, hashed=True, read=count)
        read(record.bytes - done)
        if state:
            yield fail(f"{name} {state}")
    for path in sorted(recorded_files(folder)):
        if (name := path.relative_to(folder).as_posix()) not in manifest.files:
            yield fail(f"{name} is not of this artifact", f"remove {path}")
