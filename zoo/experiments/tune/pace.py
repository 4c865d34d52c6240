"""How long a training of a study takes, by those that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.contracts import Entry, TrainRequest
from zoo.errors import ZooError
from zoo.report.duration import format_seconds
from zoo.scores.tuned import TriedSettings
from zoo.store import Artifact, find, list_artifacts
from zoo.targets import machine_fingerprint

SAME = ("epochs", "max_rows", "batch_rows", "method", "gpus")  # settings by which two trainings take as long


def expected_seconds(trials: Sequence[TriedSettings], own: Entry, entry: Entry) -> float | None:
    """Seconds of a training by the median of a study's own; None before one has ended.

    All learn the same rows, each so many times.
    """
    assert own.train is not None and entry.train is not None
    ended = [trial for trial in trials if trial.state == "complete" and trial.seconds]
    paces = [(trial.seconds or 0.0) / trial.settings.get("epochs", own.train.epochs) for trial in ended]
    return float(np.median(paces)) * entry.train.epochs if paces else None


def check_budget(budget_seconds: float | None, spent: float, request: TrainRequest, store: Path) -> None:
    """ZooError where trainings in the store say that a budget ends before a study's first one.

    They are of the same entry and battles on such a machine, and as long. By their optimizer steps alone: evaluations and
    loading come on top.
    """
    if budget_seconds is None or find(store, request) is not None:
        return
    known = [least for made in list_artifacts(store, "train") if (least := _like(made, request)) is not None]
    if known and spent + float(np.median(known)) > budget_seconds:
        took, asked = format_seconds(float(np.median(known))), format_seconds(budget_seconds)
        raise ZooError(
            f"--budget: {asked} is less than one training, which took {took} here on these battles; give several times that"
        )


def _like(made: Artifact, request: TrainRequest) -> float | None:
    """Seconds of the steps of a training that is as long as another.

    None for one that is not, or of something else.
    """
    known = made.manifest.request
    if not isinstance(known, TrainRequest) or made.manifest.hardware.get("machine") != machine_fingerprint():
        return None
    if (known.entry, known.battles.fingerprint, known.prompt) != (request.entry, request.battles.fingerprint, request.prompt):
        return None
    if any(getattr(known.spec, key) != getattr(request.spec, key) for key in SAME):
        return None
    return made.manifest.measurements.run_seconds
