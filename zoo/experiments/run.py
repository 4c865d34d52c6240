"""Run an entry's chain for one fold or all, and log each stage to MLflow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from zoo.contracts import (
    Entry,
    Request,
)
from zoo.pipeline.chain import Say
from zoo.pipeline.runner import run_stage
from zoo.store import Artifact, artifact_name, find


def run_chain(requests: list[Request], entry: Entry, store: Path, *, say: Say, track: bool = True) -> list[Artifact]:
    """Run stages in order and mirror each to MLflow; the artifacts, the last stage's last."""
    artifacts = []
    for request in requests:
        known = find(store, request)
        say(f"{request.stage} {entry.name}: {'in the store' if known else 'running'} ({artifact_name(request)})")
        started = time.monotonic()
        artifact = known or run_stage(request, store, say=say)
        if not known:
            say(f"{request.stage} {entry.name}: done in {time.monotonic() - started:.0f} s")
        artifacts.append(artifact)
        if track:
            from zoo.tracking.stages import log_stage

            log_stage(artifact.manifest, artifact.path, entry)
    return artifacts


def run_folds(chains: Sequence[list[Request]], entry: Entry, store: Path, *, say: Say, track: bool = True) -> list[Artifact]:
    """Run the chains one after the other; the last artifact of each.

    What is in the store is not made again.
    """
    finished = []
    for number, requests in enumerate(chains):
        say(f"{entry.name}: fold {number} of {len(chains)}")
        finished.append(run_chain(requests, entry, store, say=say, track=track)[-1])
    return finished
