"""What lies on a remote, and which of it a name means.

`NAME/manifest.json` says that an artifact is whole: it is put there last, by whoever is first. Its files lie beside it under
their SHA-256, so that two pushes of one artifact never write into each other's. `.manifests/NAME/` holds manifests of stages
that artifacts were made from, `.written/` the notes of files that left a store, as in a store.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from zoo.contracts import Manifest, ScoreCard, first_fault, inputs_of
from zoo.errors import ZooError
from zoo.remote.faults import Unreachable
from zoo.remote.files import RemoteFiles
from zoo.scores.tables import CARD
from zoo.store import APART, MANIFEST, WRITTEN, fingerprint, fingerprint_of, leave_out, names_fingerprint, parse_manifest

NAME = re.compile(r"[a-z][a-z-]*-[0-9a-f]{16}")  # of an artifact: STAGE-FINGERPRINT
SHA256 = re.compile(r"[0-9a-f]{64}")
FINGERPRINT = re.compile(r"[\w.:-]*")  # of an input: a name is made of it, and looked for
PARTS = ".parts"  # of a folder that arrives: files that are not whole yet
MOST_MANIFEST, MOST_CARD, MOST_NOTE = 64 << 20, 4 << 20, 16 << 20  # bytes, far more than any has


@dataclass(frozen=True)
class Kept:
    """A manifest as it lies on a remote, byte for byte."""

    name: str
    manifest: Manifest
    text: bytes

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(record.bytes for record in self.manifest.files.values())


@dataclass(frozen=True)
class Index:
    """Names on a remote: artifacts, manifests of others, notes of written files by digest."""

    artifacts: frozenset[str]
    apart: frozenset[str]
    notes: frozenset[str]

    def named(self, digits: str) -> tuple[str, ...]:
        """Artifacts, else manifests alone, of a fingerprint."""
        return next((found for names in (self.artifacts, self.apart) if (found := _of(names, digits))), ())


def _of(names: frozenset[str], digits: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if fingerprint_of(Path(name)) == digits))


def read_index(files: RemoteFiles) -> Index:
    """What lies on a remote, by name alone: that an artifact is whole, its manifest says."""
    notes = {name.removesuffix(".json") for name in files.names(WRITTEN)}
    return Index(_names(files, ""), _names(files, APART), frozenset(notes))


def _names(files: RemoteFiles, folder: str) -> frozenset[str]:
    return frozenset(name for name, size in files.names(folder).items() if size is None and NAME.fullmatch(name))


def read_kept(files: RemoteFiles, name: str, *, apart: bool = False) -> Kept | None:
    """The manifest of an artifact on a remote; None where it is not there, or not whole yet.

    ZooError where it is not one, is another artifact's, or names files that a folder may not have. `apart`: one of those alone.
    """
    place = f"{APART}/{name}/{MANIFEST}" if apart else f"{name}/{MANIFEST}"
    text = files.read(place, MOST_MANIFEST)
    if text is None:
        return None
    where, mend = files.where(place), f"remove {files.where(place.rpartition('/')[0])}, and have it pushed again"
    manifest = parse_manifest(text, where, mend)
    own = f"{manifest.stage}-{fingerprint(manifest.request)}"
    if own != name or manifest.fingerprint != fingerprint(manifest.request):
        raise ZooError(f"{where}: its request is that of {own}: it was edited or renamed; {mend}", exit_code=1)
    for file, record in manifest.files.items():
        if not is_plain(file) or not SHA256.fullmatch(record.sha256) or record.bytes < 0:
            shown = file.encode("unicode_escape").decode()
            raise ZooError(f"{where}: `{shown}` is no file that an artifact may have; {mend}", exit_code=1)
    if any(not FINGERPRINT.fullmatch(given.fingerprint) for given in inputs_of(manifest.request)):
        raise ZooError(f"{where}: one of its inputs has a fingerprint that is none; {mend}", exit_code=1)
    return Kept(name, manifest, text)


def is_plain(file: str) -> bool:
    """Whether a name from a manifest stays within its folder, and is none of the store's own."""
    path = PurePosixPath(file)
    inside = not path.is_absolute() and ".." not in path.parts and str(path) == file and "\\" not in file and file.isprintable()
    return inside and path.parts[:1] not in ((), (PARTS,), (MANIFEST,))


def named_there(files: RemoteFiles, index: Index, names: Sequence[str]) -> list[Kept]:
    """The finished artifacts on a remote that each name means, once each.

    Without names every score table. A fingerprint (its first digits are enough) or STAGE-FINGERPRINT is one artifact; a member
    or an entry its score tables. ZooError where a name means none, or a fingerprint several.
    """
    found: dict[str, Kept] = {}
    tables: list[Kept] | None = None
    for name in names or [""]:
        digits = [one for one in sorted(index.artifacts) if name == one or names_fingerprint(name, fingerprint_of(Path(one)))]
        if len(digits) > 1:
            raise ZooError(f"{name}: the beginning of {len(digits)} fingerprints: {', '.join(digits)}")
        chosen = [kept for one in digits if (kept := read_kept(files, one))]
        if not digits:
            tables = list(_tables(files, index)) if tables is None else tables
            chosen = [kept for kept in tables if not name or _is_of(files, kept, name)]
        if name and not chosen:
            what = "is not whole there yet" if digits else "no artifact, member or entry"
            raise ZooError(f"{name}: {what} of {files.where()}; `zoo pull --dry-run` lists its score tables")
        found |= {kept.name: kept for kept in chosen}
    return list(found.values())


def _tables(files: RemoteFiles, index: Index) -> Iterator[Kept]:
    """Every artifact with a score table; one that cannot be read is told, and hides no other."""
    for name in sorted(index.artifacts):
        try:
            kept = read_kept(files, name)
        except Unreachable:
            raise
        except ZooError as error:
            leave_out(error)
            continue
        if kept and any(PurePosixPath(file).name == CARD for file in kept.manifest.files):
            yield kept


def _is_of(files: RemoteFiles, kept: Kept, name: str) -> bool:
    """Whether a score table is an entry's or a member's."""
    if kept.manifest.request.entry != name.partition("@")[0]:
        return False
    return kept.manifest.request.entry == name or name in members_of(files, kept)


def members_of(files: RemoteFiles, kept: Kept) -> list[str]:
    """The members whose score tables an artifact on a remote has, by their cards."""
    members = []
    for file, record in kept.manifest.files.items():
        if PurePosixPath(file).name != CARD:
            continue
        place = f"{kept.name}/{record.sha256}"
        text = files.read(place, MOST_CARD)
        if text is None or hashlib.sha256(text).hexdigest() != record.sha256:
            leave_out(ZooError(f"{files.where(place)}: is not the {CARD} that the manifest names"))
            continue
        try:
            members.append(ScoreCard.model_validate_json(text).member)
        except ValidationError as error:
            leave_out(ZooError(f"{files.where(place)}: not a card of scores ({first_fault(error)})"))
    return members


def read_note(files: RemoteFiles, digest: str) -> bytes | None:
    """A note of which artifacts wrote a file, as it lies on a remote.

    None for one that is not of the digest.
    """
    text = files.read(f"{WRITTEN}/{digest}.json", MOST_NOTE)
    try:
        note = json.loads(text or b"")
        return text if isinstance(note, dict) and note.get("digest") == digest else None
    except (ValueError, RecursionError):
        return None
