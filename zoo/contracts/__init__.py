"""Contracts: the entries that people write, the requests that stages are asked, and the records that they leave.

Frozen pydantic data and nothing heavier, so that `--help`, validation and the ensembler never load torch. An unknown key is an
error, and units live in names (`_seconds`, `_bytes`, `_tokens`). People write TOML (`zoo/entries/*.toml`); machines write JSON.
"""

from zoo.contracts.base import LABELS, SCHEMA_VERSION, Contract, Fraction, Name, Order, Positive, Seconds
from zoo.contracts.entry import (
    Base,
    Entry,
    LadderSpec,
    LexicalSpec,
    MergeSpec,
    PromptSpec,
    QuantizeSpec,
    ScoreSpec,
    ServeSpec,
    Shape,
    TrainSpec,
    Variant,
)
from zoo.contracts.explain import explain
from zoo.contracts.records import Cost, FileRecord, Manifest, Measurements, ScoreCard, StageResult
from zoo.contracts.requests import (
    EvaluateRequest,
    FetchRequest,
    Held,
    Input,
    LadderRequest,
    LexicalScoreRequest,
    LexicalTrainRequest,
    MergeRequest,
    QuantizeRequest,
    Request,
    ScoreRequest,
    Selection,
    TrainRequest,
)

__all__ = [
    "LABELS",
    "SCHEMA_VERSION",
    "Base",
    "Contract",
    "Cost",
    "Entry",
    "EvaluateRequest",
    "FetchRequest",
    "FileRecord",
    "Fraction",
    "Held",
    "Input",
    "LadderRequest",
    "LadderSpec",
    "LexicalScoreRequest",
    "LexicalSpec",
    "LexicalTrainRequest",
    "Manifest",
    "Measurements",
    "MergeRequest",
    "MergeSpec",
    "Name",
    "Order",
    "Positive",
    "PromptSpec",
    "QuantizeRequest",
    "QuantizeSpec",
    "Request",
    "ScoreCard",
    "ScoreRequest",
    "ScoreSpec",
    "Seconds",
    "Selection",
    "ServeSpec",
    "Shape",
    "StageResult",
    "TrainRequest",
    "TrainSpec",
    "Variant",
    "explain",
]
