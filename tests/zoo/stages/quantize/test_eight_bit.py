"""Forms with 8 bit activations: what is stored is what was meant, smoothing cancels, labels choose what stays in 16 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.helpers.requests import quantize_request
from tests.helpers.tiny_models import write_tiny_gemma3, write_tiny_llama
from zoo.contracts import Scheme
from zoo.errors import ZooError
from zoo.models.shapes import SCHEME_KEY
from zoo.stages.compare.ladder import dequantized_model
from zoo.stages.device import attention_options
from zoo.stages.quantize import choices, smoothing
from zoo.stages.quantize import stage as quantize
from zoo.stages.quantize.awq_format import dequantize_packed, read_dequantized
from zoo.stages.quantize.forms import Form, form_in, pack_signed
from zoo.stages.quantize.layerwise import LayerwiseModel, Weights
from zoo.stages.quantize.prompt_pass import PromptPass
from zoo.stages.quantize.rounded_layer import RoundedLayer

FORMS = (Form("int8"), Form("fp8"), Form("w4a8", 32))


def uneven(folder: Path) -> Path:
    """The model with input channels of weights, and norms, that differ in size as real ones do."""
    weights, generator = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            weights[name] = weight * torch.exp(0.5 * torch.randn(weight.shape[1], generator=generator)).to(weight.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.scheme)
@given(seed=st.integers(0, 2**16), size=st.floats(1e-3, 1e3))
def test_a_stored_weight_is_the_rounded_one(form: Form, seed: int, size: float) -> None:
    """Read by an own reading of the layout. No weight is off by more than half a step of its scale, or fp8's half ulp."""
    weight = size * torch.randn(16, 64, generator=torch.Generator().manual_seed(seed))
    rounded = form.nearest(weight)
    stored = form.stored(rounded)
    if form.scheme == "w4a8":
        read = dequantize_packed(stored["weight_packed"], stored["weight_scale"], None, (16, 64))
    else:
        read = stored["weight"].float() * stored["weight_scale"]
    assert torch.allclose(read, rounded.weight(), rtol=1e-6, atol=0)
    scale = rounded.scales.repeat_interleave(64 // rounded.scales.shape[1], dim=1)
    most = weight.abs() / 16 + scale / 256 if form.scheme == "fp8" else 0.5 * scale * 1.01 + weight.abs() * 2**-10
    assert ((read - weight).abs() <= most).all()


def test_signed_words_hold_their_values_from_the_lowest_bits() -> None:
    """Oracle: Python's own shifts."""
    levels = torch.randint(-8, 8, (4, 16), generator=torch.Generator().manual_seed(0)).float()
    words = pack_signed(levels)
    for row in range(4):
        for column in range(16):
            word = int(words[row, column // 8]) & 0xFFFFFFFF
            assert (word >> 4 * (column % 8)) & 15 == int(levels[row, column]) + 8


def test_activations_are_rounded_token_by_token() -> None:
    """A token with an outlier has its own scale and spoils no other."""
    x = torch.tensor([[1.0, -0.5, 0.25], [1000.0, 1.0, -1.0]])
    for form in FORMS:
        rounded = form.activations(x)
        assert torch.allclose(rounded[0], x[0], rtol=0.04)
        assert torch.allclose(form.activations(x[:1]), rounded[:1])


@pytest.mark.parametrize("scheme", ["int8", "w4a8", "fp8"])
@pytest.mark.parametrize("write", [write_tiny_llama, write_tiny_gemma3], ids=["llama", "gemma3"])
def test_a_checkpoint_computes_what_its_source_did(scheme: Scheme, write, sample_csv: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Oracle: the source in transformers. Scales moved between weights and norms must cancel, whatever was searched."""
    from transformers import AutoModelForCausalLM

    folder = uneven(write(tmp_path / "source" / "model"))
    request = quantize_request(folder.parent, sample_csv, scheme=scheme)
    result = quantize.run(request, tmp_path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config[SCHEME_KEY] == scheme and config["quantization_config"]["quant_method"] == "compressed-tensors"
    ids = torch.tensor([quantize.calibration_prompts(request)[0]])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits[0]
        found = dequantized_model(tmp_path / "model", tmp_path / "plain", torch.float32).eval()(ids).logits[0]
    most = {"int8": 0.1, "fp8": 0.2, "w4a8": 0.5}[scheme]  # random Gemma weights bear least
    assert ((found - expected).norm() / expected.norm()).item() < most
    assert result.metrics["quant/layer_error_max"] < most
    assert result.metrics["quant/finer_share"] <= (0 if scheme == "w4a8" else 0.25 + 1e-9)
    assert result.metrics["quant/label_kl"] >= 0


@pytest.mark.parametrize("scheme", ["int8", "fp8", "w4a8"])
def test_compressed_tensors_reads_a_checkpoint_as_this_project_does(
    scheme: Scheme, merged: Path, sample_csv: Path, tmp_path: Path
) -> None:
    """Oracle: compressed-tensors' own decompression, by the checkpoint's own config."""
    from compressed_tensors import compressors
    from compressed_tensors.quantization import QuantizationConfig

    quantize.run(quantize_request(merged, sample_csv, scheme=scheme, finer_share=0), tmp_path)
    weights = Weights(tmp_path / "model")
    config = QuantizationConfig(**json.loads((tmp_path / "model" / "config.json").read_text())["quantization_config"])
    compressor = compressors.BaseCompressor.get_value_from_registry(config.format)
    modules = [name.removesuffix(".weight_scale") for name in weights if name.endswith(".weight_scale")]
    assert len(modules) % 7 == 0
    for module in modules:
        stored = {name.removeprefix(f"{module}."): weights.read(name) for name in weights if name.startswith(f"{module}.")}
        expected = compressor.decompress(stored, config.config_groups["group_0"])["weight"]
        restored = read_dequantized(weights, module)
        assert restored is not None and torch.allclose(restored, expected.float(), rtol=2**-7, atol=1e-6)


def test_what_stays_in_16_bits_is_written_as_it_was(merged: Path, sample_csv: Path, tmp_path: Path) -> None:
    quantize.run(quantize_request(merged, sample_csv, scheme="int8", skip_modules=("mlp",), finer_share=0), tmp_path)
    source, made = Weights(merged / "model"), Weights(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    ignored = config["quantization_config"]["ignore"]
    kept = [name for name in source if ".mlp." in name]
    assert kept and all(torch.equal(source.read(name), made.read(name)) for name in kept)
    assert {name.removesuffix(".weight") for name in kept} <= set(ignored)
    assert form_in(config) == Form("int8")


def test_a_spec_that_leaves_nothing_is_refused(merged: Path, sample_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="leaves nothing to quantize"):
        quantize.run(quantize_request(merged, sample_csv, scheme="int8", skip_modules=("self_attn", "mlp")), tmp_path)


SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3_text": {"sliding_window": 8},
}


@pytest.mark.parametrize("family", DECODERS)
def test_smoothing_changes_no_layer_and_labels_are_the_models_own(family: str, tmp_path: Path) -> None:
    """Nothing rounded, every site scaled: biases, grouped heads, norms of queries, norms of 1 + weight, norms after a block."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **DECODERS[family]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight += 0.3 * torch.randn_like(weight)
            elif "_proj" in name:
                weight *= 4
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, **attention_options(tmp_path)).eval()
    prompts, labels = [torch.randint(3, 128, (length,)).tolist() for length in (20, 13, 30)], [5, 6, 7]
    with torch.no_grad():
        whole = LayerwiseModel(tmp_path, torch.float32)
        passed = PromptPass(whole, prompts)
        stream = passed.start()
        for number, layer in enumerate(whole.layers):
            whole.load(number)
            rounding, before = RoundedLayer(layer, Form("int8"), whole.linear_names()), passed.output(layer, number, stream)
            for site in smoothing.sites_of(layer, whole.head_dim):
                largest = rounding.largest_inputs(site.linears[0], passed, number, stream)
                for scales in list(smoothing.trials(site, largest, rounding.largest_weights(site)))[-1:]:
                    assert scales.max() > 1.5 * scales.min(), "there is something to move"
                    rounding.scale(site, scales)
            stream = passed.output(layer, number, stream)
            assert passed.squared_error(stream, before) <= 1e-11 * passed.squared_error(before, passed.start())
        found = passed.label_logits(stream, labels)
        expected = [plain(torch.tensor([prompt])).logits[0, -1, labels] for prompt in prompts]
    assert (found.unsqueeze(0) - torch.stack(expected).unsqueeze(1)).abs().amax(-1).amin(0).max() < 1e-5, "in some order"


SIZES = dict.fromkeys(("self_attn.q_proj", "self_attn.o_proj"), 4) | dict.fromkeys(choices.ATTENTION[1:], 1)
SIZES |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), 10)


@given(most=st.floats(0, 1))
def test_choices_keep_to_the_share_and_joined_matrices_together(most: float) -> None:
    found = choices.choices_of(SIZES, 8, list(SIZES), most)
    assert found[0].name == "nothing" and all(choice.share <= most + 1e-6 for choice in found[1:])
    for choice in found:
        kept = set(choice.parts)
        assert len(kept & set(choices.ATTENTION)) in (0, 3) and len(kept & {"mlp.gate_proj", "mlp.up_proj"}) in (0, 2)
        whole = sum(SIZES.values())
        counted = sum(whole if i in choice.layers else sum(SIZES[name] for name in kept) for i in range(8)) / (8 * whole)
        assert choice.share == pytest.approx(counted)


def test_of_choices_as_good_the_one_that_keeps_least_is_taken() -> None:
    nothing, attention = (
        choices.Choice(name, (), frozenset(), share) for name, share in (("nothing", 0.0), ("attention", 0.2))
    )
    assert choices.choose({nothing: 1.05, attention: 1.0}) == nothing
    assert choices.choose({nothing: 1.5, attention: 1.0}) == attention


@pytest.mark.parametrize("offset", [0.0, 1.0])
@given(seed=st.integers(0, 2**16))
def test_a_norm_and_its_scales_cancel_exactly(offset: float, seed: int) -> None:
    """Also in an engine of 16 bits where the file has 32: no weight that was changed is rounded there, near -1 neither."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(32, generator=generator)
    made, scales = smoothing.scaled_norm(weight, torch.exp(3 * torch.randn(32, generator=generator)), offset=offset)
    assert torch.equal(made.bfloat16().float()[scales != 1], made[scales != 1])
    assert torch.allclose((made + offset) * scales, weight.float() + offset, rtol=1e-5, atol=1e-6)
