"""Scoring with vLLM, each engine in a process of its own: replicas, agreement with transformers, and engines that die or hang."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoo.battles import read_battles
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, ServeSpec, StageResult, Variant
from zoo.prompts import encode_battles, label_probabilities, load_codec
from zoo.scores import probabilities, read_card, read_scores
from zoo.stages import score
from zoo.stages.replicas import EngineError, Patience

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]

TEMPLATE = "<|user|>\nPrompt: {prompt}\nA: {response_a}\nB: {response_b}\nWho wins?<|end|>\n"
PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
BOTH = (Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=160))
SLUGS = ("ab-160", "ba-160")


def request_for(model: Path, csv: Path, *, rows: int = 24, **spec: object) -> ScoreRequest:
    settings = {"variants": BOTH, "chunk_rows": 8, "max_seqs": 4, "max_batched_tokens": 512, "dtype": "float32"}
    return ScoreRequest(
        entry="tiny",
        model=Input(path=model.parent, fingerprint="x"),
        battles=Input(path=csv, fingerprint="y"),
        held=Held(),
        selection=Selection(rows="all", max_rows=rows),
        prompt=PROMPT,
        spec=ScoreSpec(**{**settings, **spec}),  # type: ignore[arg-type]
        target="cpu",
    )


def run(request: ScoreRequest, out: Path, *, replicas: int = 1, patience: Patience | None = None) -> StageResult:
    out.mkdir(exist_ok=True)
    return score.score(request, out, ({},) * replicas, patience)


def tables(out: Path) -> list[pd.DataFrame]:
    return [read_scores(out / slug / "scores.parquet") for slug in SLUGS]


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """One engine scoring 24 battles in both orders, undisturbed."""
    out = tmp_path_factory.mktemp("score") / "whole"
    return out, run(request_for(tiny_llama, sample_csv), out)


def exact(model: Path, csv: Path, ids: list[str], order: str) -> np.ndarray:
    """Oracle: transformers in float32, a row at a time, over the full vocabulary and with what the model does to its logits."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    codec = load_codec(model, PROMPT)
    frame = read_battles(csv).frame.set_index("id", drop=False).loc[ids]
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    with torch.no_grad():
        rows = [plain(torch.tensor([e.ids])).logits[0, -1] for e in encode_battles(turns, codec, PROMPT, order, 160)]  # type: ignore[arg-type]
    return label_probabilities(torch.stack(rows)[:, list(codec.label_ids)].numpy(), order)  # type: ignore[arg-type]


def test_the_engine_agrees_with_transformers(whole: tuple[Path, StageResult], tiny_llama: Path, sample_csv: Path) -> None:
    for table, order in zip(tables(whole[0]), ("ab", "ba"), strict=True):
        assert (table["status"] == "ok").all() and len(table) == 24
        expected = exact(tiny_llama, sample_csv, table["id"].tolist(), order)
        assert np.abs(probabilities(table) - expected).max() < 1e-4


def test_two_replicas_make_the_table_of_one(whole: tuple[Path, StageResult], tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    result = run(request_for(tiny_llama, sample_csv), tmp_path / "two", replicas=2)
    assert result.metrics["engine/replicas"] == 2
    for ours, theirs in zip(tables(tmp_path / "two"), tables(whole[0]), strict=True):
        pd.testing.assert_frame_equal(ours, theirs)  # to the last bit: a chunk depends on its own rows alone
