"""What of a store a plan needs in a notebook: checkpoints, and the terms of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.plan import Plan, PlanMember
from zoo.bundle.wheels import Models
from zoo.contracts import EngineName, FetchRequest, ScoreRequest, ScoringRequest
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.store import MANIFEST, Artifact, check_files, read_manifest, source_of
from zoo.targets import Target, load_target, target_files
from zoo.targets.load import PACKAGE_FOLDER

TRAINED_HERE = "trained here"  # what a checkpoint without pretrained weights says of its licence


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that members of the plan are scored with.

    `in_job`: it is small, and goes into the job; else it becomes a part of its own.
    """

    artifact: Artifact
    members: tuple[str, ...]
    in_job: bool
    licence: str

    @property
    def name(self) -> str:
        """Its folder's name in a store."""
        return f"{self.artifact.manifest.stage}-{self.artifact.fingerprint}"


def requests_of(plan: Plan) -> list[tuple[PlanMember, ScoringRequest]]:
    """Each member with what scores it.

    ZooError where one was imported, so that nothing can run it.
    """
    imported = [member.name for member in plan.members if member.request is None]
    if len(imported) == len(plan.members):
        raise ZooError(
            "the plan consists of imported tables: nothing of it runs in a notebook; blend tables here: "
            "ensemble predict PLAN --scores NAME=FILE"
        )
    if imported:
        raise ZooError(
            f"{imported[0]} was imported: its table has no checkpoint that a notebook could run; build without it: "
            f"ensemble build --exclude {imported[0]}"
        )
    return [(member, member.request) for member in plan.members if member.request is not None]


def engines_of(plan: Plan) -> set[EngineName]:
    """The engines that the plan's members are scored by; none where all of them do without."""
    return {request.spec.engine for _, request in requests_of(plan) if isinstance(request, ScoreRequest)}


def models_of(plan: Plan, target: Target) -> Models | None:
    """The models that the wheels have to run on the target.

    Encoders, without vLLM, where no language model is in the plan; None where nothing needs an engine.
    """
    engines = engines_of(plan)
    return Models(target.engine, encoders="vllm" not in engines) if engines else None


def checkpoints_of(plan: Plan, store: Path) -> list[Checkpoint]:
    """The plan's checkpoints in the order of its members, each once.

    ZooError where the store lacks one, or one is not as its manifest says.
    """
    members: dict[str, list[str]] = {}
    requests: dict[str, ScoringRequest] = {}
    for member, request in requests_of(plan):
        members.setdefault(member.checkpoint, []).append(member.name)
        requests[member.checkpoint] = request
    found = []
    for fingerprint, names in members.items():
        artifact = _artifact(store, fingerprint, names[0])
        check_files(artifact)
        small = not isinstance(requests[fingerprint], ScoreRequest)
        licence = TRAINED_HERE if small else _licence(artifact, requests[fingerprint].entry)
        found.append(Checkpoint(artifact, tuple(names), small, licence))
    return found


def _artifact(store: Path, fingerprint: str, member: str) -> Artifact:
    for manifest in sorted(store.glob(f"*-{fingerprint}/{MANIFEST}")):
        return Artifact(manifest.parent, read_manifest(manifest.parent))
    raise ZooError(f"{member}: checkpoint {fingerprint} is not in {store}; copy it there, or name the store (ZOO_HOME)")


def _licence(artifact: Artifact, entry: str) -> str:
    """The licence of the weights that a checkpoint was made from: of their fetching, else as the entry says."""
    fetched = source_of(artifact.manifest, artifact.path, "fetch")
    if fetched is not None and isinstance(fetched.manifest.request, FetchRequest):
        return fetched.manifest.request.base.licence
    try:
        base = load_entry(entry).base
    except ZooError:
        base = None
    return base.licence if base else "unknown"


def own_targets(requests: Sequence[ScoringRequest]) -> dict[str, Path]:
    """Files of the targets that requests name and that the package does not have, by name.

    Scoring reads a request's target, also where that is another machine than the one it now runs on.
    """
    named = {name for request in requests for name in (request.target, getattr(request, "emulates", None)) if name}
    files = target_files()
    found = {}
    for name in sorted(named):
        load_target(name)
        if files[name].parent != PACKAGE_FOLDER:
            found[name] = files[name]
    return found
