"""From what a stage was made: its inputs' artifacts in the same store, and what quantization cost in log loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Manifest
from zoo.store import MANIFEST, Artifact, identity, list_artifacts, read_manifest

if TYPE_CHECKING:
    import pandas as pd

DEPTH = 8  # more stages than any chain has


def sources(manifest: Manifest, folder: Path) -> Iterator[Artifact]:
    """The artifacts that a stage read, as far as the store still has them. `folder`: the stage's own, in the store."""
    for value in manifest.request.values():
        if isinstance(value, dict) and value.keys() == {"path", "fingerprint"}:
            for path in folder.parent.glob(f"*-{value['fingerprint']}/{MANIFEST}"):
                yield Artifact(path.parent, read_manifest(path.parent))


def source_of(manifest: Manifest, folder: Path, *stages: str, depth: int = DEPTH) -> Artifact | None:
    """The nearest artifact of one of these stages that a stage was made from, however far back; None where there is none."""
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
    """What the folds of one recipe share: the requests of training, merging, quantizing and of the stage itself, without the
    fold and without inputs but the base and the battles. Empty where a checkpoint's training is no longer in the store."""
    chain = [manifest]
    for stage in ("quantize", "merge", "train"):
        found = source_of(manifest, folder, stage)
        if found is not None:
            chain.append(found.manifest)
    if chain[-1].stage != "train":
        return ""
    requests = [
        {
            key: value
            for key, value in identity(link.request).items()
            if key in ("base", "battles") or (key != "held" and not (isinstance(value, dict) and "fingerprint" in value))
        }
        for link in chain
    ]
    return hashlib.sha256(json.dumps(requests, sort_keys=True).encode()).hexdigest()[:16]


def quantization_delta(manifest: Manifest, folder: Path, slug: str, battles: pd.DataFrame) -> dict[str, float]:
    """`quant/delta_log_loss`: the quantized checkpoint's log loss minus that of the merged one it was made from.

    Both by the same engine stage, variant and rows: known where the store also has a score stage of the merged weights. Its
    standard error is that of the paired differences.
    """
    import numpy as np

    from zoo.metrics import log_loss_rows
    from zoo.scores import OK, read_scores
    from zoo.slices import labelled_rows

    quantized = next((a for a in sources(manifest, folder) if a.manifest.stage == "quantize"), None)
    merged = next(sources(quantized.manifest, quantized.path), None) if quantized else None
    if merged is None:
        return {}
    table = read_scores(folder / slug / "scores.parquet")
    for other in reversed(list_artifacts(folder.parent, "score")):
        path = other.path / slug / "scores.parquet"
        if other.manifest.request["model"]["fingerprint"] != merged.fingerprint or not path.exists():
            continue
        before = read_scores(path)
        shared = sorted(set(table["id"][table["status"] == OK]) & set(before["id"][before["status"] == OK]))
        pair = [labelled_rows(t.set_index("id", drop=False).loc[shared], battles) for t in (table, before)]
        if len(pair[0].y) > 1 and len(pair[0].y) == len(pair[1].y):
            difference = log_loss_rows(pair[0].p, pair[0].y) - log_loss_rows(pair[1].p, pair[1].y)
            error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
            return {"quant/delta_log_loss": float(difference.mean()), "quant/delta_log_loss_se": error}
    return {}
