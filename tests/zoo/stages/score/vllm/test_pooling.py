"""Classifiers by vLLM's pooling runner: raw logits, the family's soft-cap, float16, and quantized bodies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.classifiers import CAP, answers, write_classifier
from tests.helpers.paths import ROOT
from tests.helpers.requests import quantize_request
from tests.helpers.tiny_models import write_tokenizer
from zoo.contracts import ScoreSpec, ServeSpec, Variant
from zoo.models.shapes import read_config
from zoo.stages.quantize import awq_format
from zoo.stages.quantize import stage as quantize
from zoo.stages.score.vllm.engine import engine_arguments

ROWS = [np.random.default_rng(n).integers(3, 300, n).tolist() for n in (60, 41, 33, 7, 100)]
FORMS = ("awq", "int8")
# What is served, by family and form, with dtype and bits of rescaling; the largest difference of a logit that is let pass.
SERVED: dict[str, tuple[str, str, int | None, float]] = {
    "qwen2": ("qwen2", "float32", None, 1e-4),
    "gemma2": ("gemma2", "float32", None, 1e-4),
    "gemma2 in float16": ("gemma2", "float16", 4, 0.05),
    "llama-awq": ("llama-awq", "bfloat16", None, 0.15),
    "llama-int8": ("llama-int8", "bfloat16", None, 0.15),
}


def arguments_of(folder: Path, bits: int | None = None) -> dict[str, object]:
    spec = ScoreSpec(variants=(Variant(max_tokens=128),))
    return engine_arguments(folder, spec, ServeSpec(float16_rescale_bits=bits), gpus=1, on_gpu=False)


def test_a_classifier_is_pooled_and_asks_for_no_log_probabilities(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "gemma2")
    plain, rescaled = arguments_of(folder), arguments_of(folder, 4)
    for arguments in (plain, rescaled):
        assert arguments["runner"] == "pooling" and arguments["convert"] == "classify" and "logprobs_mode" not in arguments
    assert plain["hf_overrides"]["architectures"] == ["Gemma2ForCausalLM"]  # type: ignore[index]
    assert rescaled["hf_overrides"]["architectures"] == ["RescaledGemma2ForCausalLM"]  # type: ignore[index]
    causal = arguments_of(tmp_path / "gemma2-causal")
    assert "runner" not in causal and causal["logprobs_mode"] == "raw_logits"


@pytest.fixture(scope="module")
def folders(sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Classifiers of three families, and one of them quantized to two forms."""
    place = tmp_path_factory.mktemp("classifiers")
    found = {family: write_classifier(place / family / "model", family) for family in ("llama", "qwen2", "gemma2")}
    write_tokenizer(found["llama"])
    for form in FORMS:
        out = place / form
        out.mkdir()
        quantize.run(quantize_request(found["llama"].parent, sample_csv, scheme=form), out)
        found[f"llama-{form}"] = out / "model"
    return found


@pytest.fixture(scope="module")
def served(folders: dict[str, Path]) -> dict[str, np.ndarray]:
    """Logits of all of `SERVED` by engines in one process: one takes seconds to import."""
    asked = [[str(folders[name]), dtype, bits] for name, dtype, bits, _ in SERVED.values()]
    command = [sys.executable, "-m", "tests.helpers.classifier_engine", json.dumps(asked)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, input=json.dumps(ROWS), env=environment, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr[-2000:]
    return dict(zip(SERVED, map(np.array, json.loads(made.stdout.splitlines()[-1])), strict=True))


@pytest.mark.chain
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SERVED)
def test_the_engine_agrees_with_transformers_in_float32(
    name: str, folders: dict[str, Path], served: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Oracle: transformers on the same weights; of a quantized checkpoint on the plain weights that it stands for."""
    family, _, _, most = SERVED[name]
    folder = folders[family]
    if "-" in family:
        awq_format.write_dequantized(folder, tmp_path / "plain")
        folder = tmp_path / "plain"
    expected = answers(folder, ROWS)
    difference = np.abs(served[name] - expected).max()
    print(f"{name}: largest difference of a logit {difference:.2g}, of logits up to {np.abs(expected).max():.2g}")
    assert difference < most and np.abs(expected).max() > 1
    if "gemma2" in name:
        assert np.abs(served[name]).max() < CAP


@pytest.mark.parametrize("form", FORMS)
def test_the_head_stays_as_it_was_and_is_said_to(folders: dict[str, Path], form: str) -> None:
    from zoo.stages.quantize.layerwise import Weights

    before, after = (Weights(folders[name]).read("score.weight") for name in ("llama", f"llama-{form}"))
    assert after.equal(before)
    config = read_config(folders[f"llama-{form}"])
    left = config["quantization_config"]["modules_to_not_convert" if form == "awq" else "ignore"]
    assert "score" in left and config["architectures"] == ["LlamaForSequenceClassification"]
