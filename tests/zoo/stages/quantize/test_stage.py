"""Quantization as a stage: the checkpoint computes what its source did; what cannot work is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.requests import quantize_request
from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import QuantizeSpec
from zoo.errors import ZooError
from zoo.stages.quantize import awq_format
from zoo.stages.quantize import stage as quantize


def test_awq_checkpoint_is_whole_and_close_to_its_source(merged: Path, sample_csv: Path, tmp_path: Path) -> None:
    result = quantize.run(quantize_request(merged, sample_csv), tmp_path)
    # Round-to-nearest of Gaussian weights in groups of 32 with 16 levels is off by about 0.08 of their norm.
    assert 0.03 < result.metrics["quant/weight_error_mean"] < 0.15
    assert result.metrics["quant/layer_error_max"] < 0.3
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "awq" and config["quantization_config"]["group_size"] == 32
    assert (tmp_path / "model" / "tokenizer.json").exists()


def test_quantized_layers_compute_what_the_model_did(sample_csv: Path, tmp_path: Path) -> None:
    """Oracle: the model itself in transformers. Scales moved between weights and norms must cancel, whatever was searched.

    The weights' input channels differ in size, as real ones do: autoawq as it comes fails this on a CPU, because its search
    scales the weights that it meant to keep.
    """
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    folder = write_tiny_llama(tmp_path / "uneven" / "model")
    weights, generator = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            weights[name] = weight * torch.exp(0.5 * torch.randn(weight.shape[1], generator=generator)).to(weight.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    request = quantize_request(folder.parent, sample_csv)
    result = quantize.run(request, tmp_path)
    awq_format.write_dequantized(tmp_path / "model", tmp_path / "plain")
    ids = torch.tensor([quantize.calibration_blocks(request)[0]])
    outputs = []
    for path in (folder, tmp_path / "plain"):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            outputs.append(model(ids).logits[0])
    assert result.metrics["quant/layer_error_max"] < 0.4
    assert ((outputs[1] - outputs[0]).norm() / outputs[0].norm()).item() < 0.4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"group_size": 48}, r"group_size 48 does not divide .* set quantize.group_size = 128"),
        ({"calibration_tokens": 10**6}, "needs at least"),
    ],
)
def test_quantize_refuses_what_cannot_work(merged: Path, sample_csv: Path, tmp_path: Path, spec: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        quantize.run(quantize_request(merged, sample_csv, **spec), tmp_path)


def test_quantize_refuses_unsupported_architectures() -> None:
    with pytest.raises(ZooError, match=r"GPT2LMHeadModel is not among the decoders that autoawq .*; choose"):
        quantize.check_supported({"architectures": ["GPT2LMHeadModel"]}, QuantizeSpec(), Path("model"))
    with pytest.raises(ZooError, match=r'set quantize\.backend = "llm-compressor"'):
        quantize.check_supported({"architectures": ["Gemma3ForCausalLM"]}, QuantizeSpec(), Path("model"))
