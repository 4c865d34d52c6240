"""Lineages by the names that people give: members, artifacts, and files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from zoo.contracts import Manifest, ScoreRequest, TrainRequest
from zoo.data.battles import read_battles
from zoo.data.columns import VOTES
from zoo.data.made import content_digest
from zoo.errors import ZooError
from zoo.pipeline.stage_table import stage_of
from zoo.scores.metric_names import JUDGE_GPU_SECONDS
from zoo.scores.named import artifacts_named
from zoo.store import Artifact, Given, Made, file_sha256, lineage, lineage_of_file, read_manifest

GENERATE_GPU_SECONDS = "generate/gpu_seconds"
# Of stages that make data, the inputs that were made for it: what models learned from, and human battles, were not.
MADE_FOR_IT = {"generate": ("prompts",), "mine": ("logs",), "judge": ("pairs",), "label": ("pairs", "judges")}


def lineage_of(store: Path, name: str, path: Path) -> list[Made | Given]:
    """What a name's artifacts, or the file at `path`, were made from.

    ZooError where neither is known.
    """
    if path.is_file():
        return [lineage_of_made_file(store, path)]
    return [lineage(store, Artifact(folder, read_manifest(folder))) for folder in artifacts_named(store, [name])]


def lineage_of_made_file(store: Path, path: Path) -> Given:
    """Who wrote a file.

    Found by its bytes, or by the battles in it with their labels, whose order and format do not matter. A file whose votes
    were changed since is nobody's.
    """
    found = lineage_of_file(store, path, file_sha256(path)[:16])
    if found.made_by:
        return found
    try:
        content = content_digest(read_battles(path, keep=VOTES))
    except ZooError:
        return found
    return lineage_of_file(store, path, found.digest, content)


def gpu_seconds(manifest: Manifest) -> float:
    """Seconds of all GPUs that a stage used, loading included.

    0 on processors, and of stages that leave GPUs alone.
    A judge's are of the scoring of its pairs, which is in the store as stages of its own.
    """
    for name in (GENERATE_GPU_SECONDS, JUDGE_GPU_SECONDS):
        if name in manifest.metrics:
            return manifest.metrics[name]
    if not stage_of(manifest.stage).on_gpus:
        return 0.0
    return _gpus(manifest) * (manifest.measurements.load_seconds + manifest.measurements.run_seconds)


def _gpus(manifest: Manifest) -> int:
    """GPUs that a stage used of its machine's: most stages one, whatever else the machine has."""
    there = sum(int(count) for count in re.findall(r"(?:^|\+ )(\d+) x ", manifest.hardware.get("machine", "")))
    request = manifest.request
    if isinstance(request, TrainRequest):
        return min(there, request.spec.gpus)
    if not isinstance(request, ScoreRequest):
        return min(there, 1)
    split = request.serve.layout != "replicas"  # one copy over all of the target's
    return there if split else min(there, int(manifest.metrics.get("engine/replicas", 1)))


def gpu_seconds_of_making(store: Path, path: Path) -> float | None:
    """GPU seconds of generating a made file's answers and of judging its pairs.

    None where nobody knows: the file is from elsewhere, or an artifact of its chain is gone.
    """
    steps = {step.name: step for made in lineage_of_made_file(store, path).made_by for step in _made_for(made)}
    known = [step.artifact for step in steps.values() if step.artifact]
    if not steps or len(known) < len(steps):
        return None
    return sum(gpu_seconds(artifact.manifest) for artifact in known)


def _made_for(made: Made) -> Iterator[Made]:
    yield made
    for given in made.given:
        if given.what.split(" ")[0] in MADE_FOR_IT.get(made.stage, ()):
            for earlier in given.made_by:
                yield from _made_for(earlier)
