"""Lineage of an artifact: the artifacts in the same store that it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.contracts import Manifest, inputs_of
from zoo.errors import ZooError
from zoo.store.artifacts import MANIFEST, Artifact, identity, leave_out, list_artifacts, read_manifest

DEPTH = 8  # more stages than any chain has
OF_ONE_FOLD = ("adapter", "model", "start")  # of a request: what differs between the folds of one recipe, beside `held.fold`


def sources(manifest: Manifest, folder: Path) -> Iterator[Artifact]:
    """The artifacts that a stage read, as far as the store still has them.

    `folder`: the stage's own, in the store.
    """
    for given in manifest.request.inputs.values():
        for path in folder.parent.glob(f"*-{given.fingerprint}/{MANIFEST}"):
            try:
                yield Artifact(path.parent, read_manifest(path.parent))
            except ZooError as error:  # what a stage was made from is told as far as it can be read
                leave_out(error)


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
    for stage in ("quantize", "merge", "train"):
        found = source_of(manifest, folder, stage)
        if found is not None:
            chain.append(found.manifest)
    if chain[-1].stage != "train":
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
