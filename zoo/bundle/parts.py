"""Parts of a bundle: files with hashes, markers, and metadata for the host's command line."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zoo.bundle.contracts import MARKER, METADATA, UNCOUNTED, BundledFile, Kind, Marker, Part, digest_of
from zoo.errors import ZooError
from zoo.store import copy_file, file_sha256, write_atomic

MADE_HERE = "made here"
# The host's rules: of its command line, version 2.2.5; limits of size and number as it told people, not documented.
TITLE_LENGTHS, SLUG_LENGTHS = (6, 50), (6, 50)
DATASET_BYTES = 200 * 10**9
MOST_FILES = 1000  # loose ones of a data set; folders are sent as archives
METADATA_KEYS = ("title", "id", "licenses")
LICENCE = "other"  # of a private data set; each file's own stands in bundle.json
_ADDRESS = re.compile(r"[a-z0-9](-?[a-z0-9])*")


def place(source: Path, target: Path) -> None:
    """Lay a file into a bundle: another name of it where both are on one disk, else a copy.

    A link is followed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    real = Path(os.path.realpath(source))
    try:
        os.link(real, target)
    except OSError:
        copy_file(real, target)


def copy_into(source: Path, target: Path) -> None:
    """Lay a copy of a file into a bundle: what people edit must not change there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_file(source, target)


def record(
    folder: Path, path: str, *, origin: str = MADE_HERE, licence: str = "unknown", sha256: str | None = None
) -> BundledFile:
    """What a file below a part's folder is; its hash is computed where it is not known."""
    file = folder / path
    digest = sha256 or file_sha256(file)
    return BundledFile(path=path, bytes=file.stat().st_size, sha256=digest, origin=origin, licence=licence)


def seal(folder: Path, kind: Kind, files: Iterable[BundledFile]) -> str:
    """Write a part's marker, by which the notebook knows it; its digest."""
    digest = digest_of(files)
    write_atomic(folder / MARKER, Marker(kind=kind, digest=digest).model_dump_json(indent=1) + "\n")
    return digest


def slug_of(title: str) -> str:
    """The name that the host makes of a title for addresses."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def check_address(name: str, what: str) -> str:
    """A name as it stands in the host's addresses; ZooError where it cannot be one."""
    if not _ADDRESS.fullmatch(name):
        raise ZooError(f"{what} {name!r}: give it as it stands in its address, small letters, digits and hyphens")
    return name


def write_metadata(folder: Path, owner: str, title: str) -> None:
    """Write `dataset-metadata.json`, by which the host's program makes a private data set."""
    metadata = {"title": title, "id": f"{owner}/{slug_of(title)}", "licenses": [{"name": LICENCE}]}
    write_atomic(folder / METADATA, json.dumps(metadata, indent=1) + "\n")


def metadata_faults(metadata: Any, slug: str, owner: str) -> list[str]:
    """What the host would refuse of a data set's metadata, or take for another."""
    if not isinstance(metadata, dict):
        return ["is no JSON object"]
    faults = [f"has the unknown key `{key}`" for key in metadata if key not in METADATA_KEYS]
    title, name, licences = metadata.get("title"), metadata.get("id"), metadata.get("licenses")
    if not isinstance(title, str) or not TITLE_LENGTHS[0] <= len(title) <= TITLE_LENGTHS[1]:
        faults.append(f"`title` needs {TITLE_LENGTHS[0]} to {TITLE_LENGTHS[1]} characters")
    elif slug_of(title) != slug:
        faults.append(f"`title` makes the address {slug_of(title)}, not {slug}")
    if name != f"{owner}/{slug}" or not SLUG_LENGTHS[0] <= len(slug) <= SLUG_LENGTHS[1]:
        faults.append(f"`id` is not {owner}/{slug} of {SLUG_LENGTHS[0]} to {SLUG_LENGTHS[1]} characters after the slash")
    if not isinstance(licences, list) or len(licences) != 1 or not isinstance(licences[0], dict) or "name" not in licences[0]:
        faults.append("`licenses` needs exactly one, by its name")
    return faults


def file_faults(folder: Path, files: Iterable[BundledFile], *, read: Callable[[int], object] = lambda _: None) -> list[str]:
    """What of a part's folder is missing, changed, or there without being recorded.

    `read` is told how many bytes more were hashed.
    """
    faults, expected = [], {file.path: file for file in files}
    for path, file in expected.items():
        found = folder / path
        if not found.is_file():
            faults.append(f"{found} is missing")
        elif found.stat().st_size != file.bytes:
            faults.append(f"{found} has {found.stat().st_size} bytes, not {file.bytes}")
        elif file_sha256(found, read=read) != file.sha256:
            faults.append(f"{found} was changed: its SHA-256 is another")
    return faults + [f"{folder / path} is not recorded" for path in listed(folder) if path not in expected]


def listed(folder: Path) -> list[str]:
    """The files below a part's folder that count, by path."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in found if path not in UNCOUNTED)


def size_faults(name: str, folder: Path) -> list[str]:
    """What the host would not take of a data set: its files, its bytes, their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    loose, size = [path for path in files if path.parent == folder], sum(path.stat().st_size for path in files)
    faults = []
    if len(loose) > MOST_FILES:
        faults.append(f"{name} has {len(loose)} loose files, the host takes {MOST_FILES}")
    if size > DATASET_BYTES:
        faults.append(f"{name} has {size / 1e9:.0f} GB, the host takes {DATASET_BYTES / 1e9:.0f}")
    odd = [path.name for path in files if re.search(r"[^A-Za-z0-9._@-]", path.name) or path.name.startswith(".")]
    faults += [f"{name}: the host may change or leave out a file named {file!r}" for file in odd[:3]]
    return faults


def has_folders(folder: Path) -> bool:
    """Whether a data set has folders, which are left out of uploads unless that is asked for."""
    return any(path.is_dir() for path in folder.iterdir())


def upload_command(folder: Path) -> str:
    """The command that makes a data set of a folder.

    What lies in folders of it is sent as archives, which the host unpacks.
    """
    return f"kaggle datasets create -p {shlex.quote(str(folder))}" + (" -r tar" if has_folders(folder) else "")


def sealed_part(folder: Path, part: Part) -> list[str]:
    """What of a part's marker is not as the bundle says."""
    try:
        marker = Marker.model_validate_json((folder / MARKER).read_bytes())
    except (OSError, ValueError) as error:
        return [f"{folder / MARKER}: {str(error).splitlines()[0]}"]
    same = (marker.kind, marker.digest) == (part.kind, part.digest)
    return [] if same else [f"{folder / MARKER} is that of another part"]
