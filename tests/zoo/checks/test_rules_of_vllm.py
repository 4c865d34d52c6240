"""The rules of `zoo check` against vLLM's own configuration, started for GPUs that are not there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from zoo.checks.kernels import engine_at_hand
from zoo.checks.quantizers import BACKEND_ARCHITECTURES
from zoo.checks.rules import (
    FLASHINFER_GATED,
    FLOAT16_REFUSED,
    attention_backend,
    awq_converted,
    awq_kernel,
    dtype_verdict,
    packed_kernel,
    parse_version,
)
from zoo.models.memory import CONVERSION_COPIES

REASONS = (  # the refusals that the rules are about; any other is a fault of this test
    "does not support float16",
    "is not supported for quantization method",
    "Bfloat16 is only supported",
    "is not supported for the current GPU",
)
pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """vLLM's answers, from a process of their own: what is put in its place there stays there."""
    command = [sys.executable, "-m", "tests.helpers.vllm_verdicts", str(tmp_path_factory.mktemp("model"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    answers: dict[str, list[dict[str, Any]]] = json.loads(found.stdout.splitlines()[-1])
    return answers


@pytest.mark.chain
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dtypes_are_taken_and_refused_as_by_vllm(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    assert len(verdicts["dtypes"]) > 30
    wrong = []
    for answer in verdicts["dtypes"]:
        capability = tuple(answer["capability"])
        assert answer["dtype"] or any(reason in answer["reason"] for reason in REASONS), answer
        options = {"rescaled": answer["rescaled"], "stored": answer["stored"]}
        ours = dtype_verdict(answer["architecture"], answer["declared"], capability, **options)
        taken = ours.dtype if not ours.refusal and awq_kernel(capability, 64) else None
        if taken != answer["dtype"]:
            wrong.append((answer, ours))
    assert wrong == []
    accepted = [answer["dtype"] for answer in verdicts["dtypes"] if answer["dtype"]]
    assert {"float16", "bfloat16"} == set(accepted) and len(accepted) < len(verdicts["dtypes"])


@pytest.mark.chain
@pytest.mark.slow
def test_attention_is_what_vllm_takes(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    version = parse_version(engine_at_hand() or "")
    assert version >= FLASHINFER_GATED, "before, Turing got FlashInfer"
    ours = [
        {**answer, "backend": attention_backend(version, tuple(answer["capability"]), answer["head_size"])}
        for answer in verdicts["attention"]
    ]
    assert ours == verdicts["attention"]
    assert {answer["backend"] for answer in ours} == {"FLEX_ATTENTION", "TRITON_ATTN", "FLASH_ATTN", "FLASHINFER"}
    assert {tuple(answer["capability"]) for answer in ours} == {(7, 5), (8, 0), (8, 9), (9, 0), (10, 0)}


@pytest.mark.chain
@pytest.mark.slow
def test_marlin_takes_the_groups_that_it_is_said_to(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    ours = [
        {
            **answer,
            "marlin": awq_kernel(tuple(answer["capability"]), answer["group_size"]) == "marlin",
            "converted": awq_converted(tuple(answer["capability"]), "autoawq", answer["group_size"]),
        }
        for answer in verdicts["marlin"]
    ]
    assert ours == verdicts["marlin"]
    assert {answer["marlin"] for answer in ours} == {True, False}


@pytest.mark.chain
@pytest.mark.slow
def test_converting_a_matrix_takes_what_loading_is_said_to(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    """Oracle: vLLM's own conversion under torch's memory profiler."""
    assert len(verdicts["conversion"]) == 3
    for answer in verdicts["conversion"]:
        unpacked = 4 * answer["inputs"] * answer["outputs"]
        assert answer["bytes"] == pytest.approx(CONVERSION_COPIES * unpacked, rel=0.001)


@pytest.mark.chain
@pytest.mark.slow
def test_packed_kernels_are_those_that_vllm_takes(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    ours = [
        {**a, "kernel": packed_kernel(tuple(a["capability"]), a["group_size"], zero_point=a["zero_point"])}
        for a in verdicts["packed"]
    ]
    assert ours == verdicts["packed"]
    assert {answer["kernel"] for answer in ours} == {"machete", "marlin", "exllama", "triton", ""}


def test_architectures_are_those_of_the_installed_vllm() -> None:
    origin = importlib.util.find_spec("vllm")
    assert origin is not None and origin.origin is not None
    root = Path(origin.origin).parent  # read, not imported: importing vLLM takes many seconds
    registry = (root / "model_executor/models/registry.py").read_text()
    table = registry[: registry.index("_PREVIOUSLY_SUPPORTED_MODELS = {")]
    assert [a for known in BACKEND_ARCHITECTURES.values() for a in known if f'"{a}"' not in table] == []
    config = (root / "config/model.py").read_text()
    refused = config[config.index("_FLOAT16_NOT_SUPPORTED_MODELS = {") :].split("}")[0]
    assert refused.count('":') == 4, "gemma2, gemma3, gemma3_text, glm4"
    for architecture in FLOAT16_REFUSED:
        assert f'"{architecture.split("For")[0].lower()}"' in refused
