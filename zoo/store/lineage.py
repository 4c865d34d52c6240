"""Lineage of an artifact: the artifacts in the same store that it was made from.

Files that it was given are followed by their digests to the artifacts that wrote them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.contracts import Manifest, inputs_of
from zoo.errors import ZooError
from zoo.store.artifacts import (
    APART,
    MANIFEST,
    Artifact,
    identity,
    leave_out,
    list_artifacts,
    read_manifest,
)
from zoo.store.written import find_written, note_written

DEPTH = 8  # more stages than any chain has
OF_ONE_FOLD = ("adapter", "model", "start", "fold")  # of a request: what differs between the folds of one recipe
TRAINED = ("train", "adopt")  # stages that weights which answer come from: trained here, or elsewhere


@dataclass(frozen=True)
class Made:
    """A stage's result in a lineage.

    `artifact` None: it was removed, and what is known of it comes from the note of a file that it wrote. `known`: its inputs
    are told where it stands first.
    """

    name: str
    stage: str
    entry: str
    created_at: str
    artifact: Artifact | None = field(compare=False)
    given: tuple[Given, ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Given:
    """Something that a stage read.

    `what`: which of its request's inputs; `file`: its name where it was a file; `made_by`: the artifacts that it is or that
    wrote it, none where it comes from elsewhere.
    """

    what: str
    digest: str
    file: str
    made_by: tuple[Made, ...]


def lineage(store: Path, artifact: Artifact) -> Made:
    """All that an artifact was made from, however far back."""
    return _Reader(store).made(artifact.path.name, identity_of(artifact), artifact)


def lineage_of_file(store: Path, file: Path, *digests: str) -> Given:
    """Who wrote a file, by the digests that it may be known by, and all that came before."""
    reader = _Reader(store)
    found = {made.name: made for digest in digests for made in reader.makers(digest)}
    return Given("file", digests[0], file.name, tuple(found.values()))


def users_of_files(store: Path, folders: Collection[Path]) -> dict[str, list[str]]:
    """Artifacts that were made from files of others, by the others' names.

    What stands in the way of no removal: the files lie elsewhere, or went into what was made.
    """
    names = {folder.name for folder in folders}
    owners = _Reader(store)
    found: dict[str, list[str]] = {}
    for artifact in list_artifacts(store):
        if artifact.path.name in names:
            continue
        for given in inputs_of(artifact.manifest.request):
            for owner in owners.names(given.fingerprint) & names:
                found.setdefault(owner, []).append(artifact.path.name)
    return found


def keep_lineage(artifact: Artifact) -> None:
    """Note what an artifact was asked, before it is removed.

    Under the digests of those of its files that others were made from.
    """
    store = artifact.path.parent
    read = {given.fingerprint for other in list_artifacts(store) for given in inputs_of(other.manifest.request)}
    for name, record in artifact.manifest.files.items():
        if record.sha256[:16] in read:
            note_written(store, [record.sha256[:16]], Path(name), [artifact])


def made_files(made: Made | Given) -> Iterator[Made]:
    """Every result in a lineage once, the last first."""
    seen: set[str] = set()
    todo: list[Made] = [made] if isinstance(made, Made) else list(made.made_by)
    while todo:
        one = todo.pop(0)
        if one.known or one.name in seen:
            continue
        seen.add(one.name)
        yield one
        todo += [further for given in one.given for further in given.made_by]


def identity_of(artifact: Artifact) -> dict[str, Any]:
    """What an artifact was asked, as JSON with the places of its inputs."""
    return artifact.manifest.request.model_dump(mode="json") | {"created_at": artifact.manifest.created_at.isoformat()}


class _Reader:
    """Lineages of one store; each artifact is followed once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        known = (*list_artifacts(store / APART), *list_artifacts(store))  # of one in both, that with its files
        self._artifacts = {artifact.path.name: artifact for artifact in known}
        self._by_digest: dict[str, list[str]] = {}
        for name, artifact in self._artifacts.items():
            self._by_digest.setdefault(artifact.fingerprint, []).append(name)
            for record in artifact.manifest.files.values():  # a file that is given from within the store
                self._by_digest.setdefault(record.sha256[:16], []).append(name)
        self._followed: set[str] = set()

    def names(self, digest: str) -> set[str]:
        """The artifacts that have a file of that digest, or wrote one."""
        note = find_written(self._store, digest)
        return {*self._by_digest.get(digest, ()), *(writer.artifact for writer in (note.writers if note else ()))}

    def makers(self, digest: str) -> list[Made]:
        """The artifacts that have a fingerprint or a file of that digest, or wrote one."""
        found = {name: self._artifacts[name] for name in self._by_digest.get(digest, ())}
        made = [self.made(name, identity_of(artifact), artifact) for name, artifact in found.items()]
        note = find_written(self._store, digest)
        for writer in note.writers if note else ():
            if writer.artifact not in found:
                request = {**writer.request, "created_at": writer.created_at}
                made.append(self.made(writer.artifact, request, self._artifacts.get(writer.artifact)))
        return made

    def made(self, name: str, request: Mapping[str, Any], artifact: Artifact | None) -> Made:
        """`request`: as JSON, since that of a removed artifact may be of another version."""
        stage, entry, at = (str(request.get(key, "")) for key in ("stage", "entry", "created_at"))
        if name in self._followed:
            return Made(name, stage, entry, at, artifact, known=True)
        self._followed.add(name)
        given = [
            Given(what, digest, "" if (made_by := self.makers(digest)) and is_folder else file, tuple(made_by))
            for what, digest, file, is_folder in _inputs(request)
        ]
        return Made(name, stage, entry, at, artifact, tuple(given))


def _inputs(value: Any, what: str = "") -> Iterator[tuple[str, str, str, bool]]:
    """Inputs of a request as JSON: which, digest, name of the file, and whether it was an artifact's folder."""
    if isinstance(value, Mapping):
        if value.keys() == {"path", "fingerprint"}:
            name = Path(str(value["path"])).name
            yield what, str(value["fingerprint"]), name, name.endswith(f"-{value['fingerprint']}")
            return
        for key, item in value.items():
            inner = what if key in ("file", "battles") and what else f"{what} {key}".strip()
            yield from _inputs(item, inner)
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _inputs(item, f"{what} {number}" if len(value) > 1 else what)


def sources(manifest: Manifest, folder: Path) -> Iterator[Artifact]:
    """The artifacts that a stage read, as far as the store still has them.

    `folder`: the stage's own, in the store.
    """
    for given in manifest.request.inputs.values():
        yield from with_fingerprint(store_of(folder), given.fingerprint)


def store_of(folder: Path) -> Path:
    """The store of an artifact's folder, also of one whose manifest alone is there."""
    return folder.parent.parent if folder.parent.name == APART else folder.parent


def with_fingerprint(store: Path, fingerprint: str) -> Iterator[Artifact]:
    """The artifacts of a fingerprint.

    Where there is none, what is known of one whose files are elsewhere.
    """
    paths = sorted(store.glob(f"*-{fingerprint}/{MANIFEST}"))
    for path in paths or sorted((store / APART).glob(f"*-{fingerprint}/{MANIFEST}")):
        try:
            yield Artifact(path.parent, read_manifest(path.parent))
        except ZooError as error:  # what a stage was made from is told as far as it can be read
            leave_out(error)


def earlier(store: Path, manifest: Manifest) -> dict[str, Artifact]:
    """All artifacts that a stage was made from, however far back, by name.

    Those that wrote files which a stage was given are among them.
    """
    found: dict[str, Artifact] = {}
    todo = [manifest]
    while todo:
        for given in inputs_of(todo.pop().request):
            note = find_written(store, given.fingerprint)
            prints = [writer.artifact.rpartition("-")[2] for writer in note.writers] if note else []
            for artifact in (one for each in (given.fingerprint, *prints) for one in with_fingerprint(store, each)):
                if artifact.path.name not in found:
                    found[artifact.path.name] = artifact
                    todo.append(artifact.manifest)
    return found


def dependents(store: Path) -> dict[str, list[Artifact]]:
    """Artifacts of a store by the fingerprints that they were made from, oldest first."""
    found: dict[str, list[Artifact]] = {}
    for artifact in list_artifacts(store):
        for fingerprint in {given.fingerprint for given in inputs_of(artifact.manifest.request)}:
            found.setdefault(fingerprint, []).append(artifact)
    return found


def source_of(manifest: Manifest, folder: Path, *stages: str, depth: int = DEPTH) -> Artifact | None:
    """The nearest artifact of one of these stages that a stage was made from, however far back.

    None where there is none.
    """
    found = list(sources(manifest, folder))
    for artifact in found:
        if artifact.manifest.stage in stages:
            return artifact
    for artifact in found:
        further = source_of(artifact.manifest, artifact.path, *stages, depth=depth - 1) if depth else None
        if further:
            return further
    return None


def recipe_of(manifest: Manifest, folder: Path) -> str:
    """What the folds of one recipe share.

    The requests of training, merging, quantizing and of the stage itself, without the fold and what was made of it. Empty where
    a checkpoint's training is no longer in the store.
    """
    chain = [manifest]
    for stages in (("quantize",), ("merge",), TRAINED):
        found = source_of(manifest, folder, *stages)
        if found is not None:
            chain.append(found.manifest)
    if chain[-1].stage not in TRAINED:
        return ""
    earlier = found
    while earlier is not None and (earlier := source_of(earlier.manifest, earlier.path, "train", depth=0)):
        chain.append(earlier.manifest)  # a training that started from another's adapter is of both
    requests = [_of_any_fold(identity(link.request)) for link in chain]
    return hashlib.sha256(json.dumps(requests, sort_keys=True).encode()).hexdigest()[:16]


def _of_any_fold(request: dict[str, Any]) -> dict[str, Any]:
    """A request's identity without its fold; of how many, and by which rule, stays: two splits are two recipes."""
    held = request.get("held")
    split = {key: value for key, value in held.items() if key != "fold"} if isinstance(held, dict) else held
    return {key: value for key, value in request.items() if key not in OF_ONE_FOLD} | ({"held": split} if held else {})
