"""Records: what a stage leaves behind."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from zoo.contracts.base import SCHEMA_VERSION, Contract, FoldRule, Seconds, added_later
from zoo.contracts.cost import Cost
from zoo.contracts.requests import Request, ScoringRequest
from zoo.contracts.scoring import Variant


class Measurements(Contract):
    """What a stage cost on the machine it ran on.

    `load_seconds`: process start to first row; `run_seconds`: the rest. `peak_bytes`: scoring on GPUs, what the fullest card
    needed, context and loading included; other stages on a GPU, torch's largest allocation; without a GPU, the largest memory
    of the stage's process tree.
    """

    load_seconds: Seconds = 0.0
    run_seconds: Seconds = 0.0
    rows: int = 0
    tokens: int = 0
    peak_bytes: int = 0


class StageResult(Contract):
    """What a stage function returns and leaves as `result.json`."""

    metrics: dict[str, float] = Field({})
    curves: dict[str, tuple[tuple[int, float], ...]] = Field({}, description="metric name -> (step, value) pairs")
    measurements: Measurements = Measurements()


class FileRecord(Contract):
    bytes: int
    sha256: str


class Manifest(Contract):
    """`manifest.json`, written last: its presence says that the folder is finished."""

    schema_version: int = SCHEMA_VERSION
    stage: str
    fingerprint: str
    request: Request = Field(discriminator="stage")
    files: dict[str, FileRecord]
    metrics: dict[str, float]
    measurements: Measurements
    hardware: dict[str, str]
    packages: dict[str, str]
    git_commit: str | None
    argv: tuple[str, ...]
    created_at: datetime


class ScoreCard(Contract):
    """`scores.json`, beside each `scores.parquet`: what the table is, and what its member costs."""

    schema_version: int = SCHEMA_VERSION
    member: str = Field(description="`entry@variant`, or the name an imported table was given")
    entry: str
    variant: Variant
    target: str
    emulates: str | None = Field(None, description="target whose memory and kernels were kept to; its speed was not measured")
    engine: str = Field(description="what computed the probabilities, with its version")
    dataset_digest: str
    rows: int
    failed_rows: int
    checkpoint: str = Field(description="fingerprint of the weights; members that share it share one load")
    cost: Cost
    fold_rule: FoldRule | None = added_later(
        None,
        description="how prompts were dealt into its folds; None: each by its own hash, or nobody knows (imported)",
    )
    request: ScoringRequest | None = Field(
        None,
        discriminator="stage",
        description="the request that made it, re-issued on new battles to predict; None: imported",
    )
    suspect: str = added_later(
        "", description="why its rows may be of a model that has seen their labels: as they look, or since nobody said"
    )
