"""Requests of stages for the tiny model."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import (
    Base,
    Held,
    Input,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    TrainRequest,
    TrainSpec,
)

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
BASE = Base(hub_id="test/tiny", architecture="LlamaForCausalLM", parameters=300_000, licence="none")
SPEC = TrainSpec(rank=4, alpha=8, dropout=0.0, learning_rate=5e-3, eval_rows=30, max_rows=64, batch_rows=16)


def given(path: Path, name: str = "x") -> Input:
    return Input(path=path, fingerprint=name)


def train_request(base: Path, csv: Path, spec: TrainSpec = SPEC) -> TrainRequest:
    return TrainRequest(entry="tiny", base=given(base), battles=given(csv), held=Held(), prompt=PROMPT, spec=spec)


def quantize_request(merged: Path, csv: Path, **spec: object) -> QuantizeRequest:
    settings = {"group_size": 32, "calibration_rows": 4, "calibration_tokens": 64, "apply_clip": False}
    return QuantizeRequest(
        entry="tiny",
        model=given(merged),
        battles=given(csv),
        held=Held(),
        prompt=PROMPT,
        spec=QuantizeSpec(**{**settings, **spec}),  # type: ignore[arg-type]
    )


def merge_request(folder: Path, *, fingerprint: str = "b1", into: str = "trained") -> MergeRequest:
    """A request whose identity is the fingerprint and `into`; nothing lies at its paths."""
    base = Input(path=folder / "base", fingerprint=fingerprint)
    return MergeRequest(entry="tiny", base=base, adapter=base, spec=MergeSpec(into=into))
