"""Gemma 2 and 3 in float16: vLLM on weights whose numbers float16 cannot hold, against transformers in float32."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from zoo.checks.rules import RESCALABLE
from zoo.contracts import ServeSpec
from zoo.errors import ZooError
from zoo.stages.score.vllm.plugin import MODULE, rescale_overrides

LABELS = [5, 6, 7]
BITS = 8
SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "max_position_embeddings": 512,
    "sliding_window": 32,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write_inflated(folder: Path, kind: str) -> None:
    """Random weights whose post-norms lift the residual stream, and whose pre-norms lift gate and up, far beyond 65504."""
    import torch
    import transformers

    names = {"gemma2": ("Gemma2Config", "Gemma2ForCausalLM"), "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM")}[kind]
    config, model = (getattr(transformers, name) for name in names)
    torch.manual_seed(0)
    made = model(config(**SIZES))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "post_attention_layernorm" in name or "post_feedforward_layernorm" in name:
                parameter.fill_(30000.0)
            elif "pre_feedforward_layernorm" in name:
                parameter.fill_(500.0)
            else:
                parameter.normal_(0, 0.1)
    made.half().save_pretrained(folder)


def float32_reference(folder: Path, rows: list[list[int]]) -> tuple[np.ndarray, dict[str, float]]:
    """Label logits (rows, 3) by transformers, and the largest numbers on the way."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    largest = {"residual": 0.0, "product": 0.0}

    def note(place: str, value: Any) -> None:
        largest[place] = max(largest[place], float(value.abs().max()))

    def after_layer(_: Any, inputs: Any, out: Any) -> None:
        note("residual", out[0] if isinstance(out, tuple) else out)

    def after_down(_: Any, inputs: Any, out: Any) -> None:
        note("product", inputs[0])

    for layer in model.model.layers:
        layer.register_forward_hook(after_layer)
        layer.mlp.down_proj.register_forward_hook(after_down)
    with torch.no_grad():
        logits = [model(torch.tensor([row])).logits[0, -1, LABELS].tolist() for row in rows]
    return np.array(logits), largest


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["gemma2", "gemma3"])
def test_rescaling_makes_float16_agree_with_float32_where_it_overflows_without(tmp_path: Path, kind: str) -> None:
    write_inflated(tmp_path, kind)
    generator = np.random.default_rng(0)
    rows = [generator.integers(8, 512, size=n).tolist() for n in (5, 40, 100, 77)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    exact, largest = float32_reference(tmp_path, rows)
    assert largest["residual"] > 65504 and largest["product"] > 65504

    settings = [["float16", None], ["float16", BITS], ["float32", None], ["float32", BITS]]
    command = [sys.executable, "-m", "tests.helpers.gemma_engine", str(tmp_path), json.dumps(settings)]
    found = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    overflown, rescaled, plain, shifted = (np.array(values) for values in json.loads(found.stdout.splitlines()[-1]))

    assert not np.isfinite(overflown).any()
    assert np.abs(rescaled - exact).max() < 0.02, "float16 keeps 11 bits"
    assert np.abs(plain - exact).max() < 1e-3
    assert np.array_equal(plain, shifted), "in float32, where nothing is too small, powers of two change no bit"


@pytest.mark.chain
def test_the_plugin_is_an_entry_point_that_a_fresh_process_finds_and_loads() -> None:
    """As every process of the engine does: it knows nothing but what is installed, loads the entry point and calls it."""
    (declared,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "vllm.general_plugins"
    ].items()
    program = """
import importlib.metadata
from vllm.plugins import load_plugins_by_group
points = importlib.metadata.entry_points(group="vllm.general_plugins")
plugins = load_plugins_by_group("vllm.general_plugins")
plugins["preference_zoo"]()
from vllm import ModelRegistry
print([(p.name, p.value) for p in points if p.name == "preference_zoo"][:1], sorted(ModelRegistry.get_supported_archs()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = done.stdout.splitlines()[-1]
    assert found.startswith(str([declared])), "run `make setup`: what is installed is not this tree's"
    assert all(f"'Rescaled{name}'" in found for name in RESCALABLE)
    assert importlib.util.find_spec(MODULE) is not None


def test_overrides_are_for_gemma_alone_and_only_where_asked() -> None:
    gemma = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
    assert rescale_overrides(gemma, None) == {}
    assert rescale_overrides(gemma, 4)["architectures"] == ["RescaledGemma2ForCausalLM"]
    assert rescale_overrides(gemma, 4)["float16_rescale_bits"] == 4
    with pytest.raises(ZooError, match="LlamaForCausalLM cannot be rescaled"):
        rescale_overrides({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, 4)


def test_an_entry_that_does_not_rescale_makes_the_request_it_always_made() -> None:
    assert "float16_rescale_bits" not in ServeSpec().model_dump(mode="json")
    assert "float16_rescale_bits" not in ServeSpec().model_dump_json()
    spec = ServeSpec(float16_rescale_bits=4)
    assert ServeSpec.model_validate(spec.model_dump(mode="json")) == spec
