"""AWQ's searches and packing, against autoawq's own code and against plain arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.quantize.quantizer import AwqQuantizer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import Held, Input, PromptSpec, QuantizeRequest, QuantizeSpec
from zoo.stages.quantize import awq_quantizer
from zoo.stages.quantize import stage as quantize
from zoo.stages.quantize.awq_format import dequantize, write_dequantized
from zoo.stages.quantize.awq_quantizer import CheckedQuantizer, Features, group_gram, pack_linear, squared_error
from zoo.stages.quantize.layerwise import LayerwiseModel, Weights


def quantizer(group_size: int = 32) -> Any:
    made = CheckedQuantizer.__new__(CheckedQuantizer)
    made.__dict__.update(group_size=group_size, zero_point=True, w_bit=4, n_parallel_calib_samples=None, duo_scaling=True)
    made.max_chunk_memory = 2**30
    return made


def uneven(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Random values whose columns differ in size, as real weights' and activations' do."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.exp(torch.randn(columns, generator=generator))


@pytest.mark.parametrize("seed", range(4))
def test_clipping_is_autoawq_s_choice(seed: int) -> None:
    """Oracle: autoawq's search, which multiplies weights and tokens out; at most 512 tokens, so that it leaves none out."""
    w, x = uneven(64, 96, seed) * 0.02, uneven(500, 96, seed + 10)
    ours = quantizer()._compute_best_clip(w, x)
    theirs = AwqQuantizer._compute_best_clip(quantizer(), w, x)
    assert ours.shape == theirs.shape == (64, 3, 1)
    same = torch.isclose(ours, theirs, rtol=1e-5)
    assert same.float().mean() > 0.99  # two limits that cost the same to the last bit may be told apart otherwise


def test_scales_are_autoawq_s_choice() -> None:
    """Oracle: autoawq's search on copies of the layer, since on a CPU it changes what it is given."""
    x = uneven(256, 64, 1).view(4, 64, 64)
    block = torch.nn.Sequential(torch.nn.LayerNorm(64), torch.nn.Linear(64, 96, bias=False))
    block[1].weight.data = uneven(96, 64, 2) * 0.02
    before = block[1].weight.data.clone()
    ours = quantizer()._search_best_scale(block, block[0], [block[1]], x)
    assert torch.equal(block[1].weight.data, before)
    hook = block[1].register_state_dict_post_hook(lambda m, state, *_: state.update({k: v.clone() for k, v in state.items()}))
    theirs = AwqQuantizer._search_best_scale(quantizer(), block, block[0], [block[1]], x)
    hook.remove()
    assert ours[:2] == theirs[:2] == ("0", ("1",))
    assert torch.allclose(ours[2], theirs[2], rtol=1e-4)


def test_gram_matrices_hold_the_mean_squared_output() -> None:
    x, w = uneven(100, 64, 3), uneven(5, 64, 4)
    gram = group_gram(x, 32, torch.device("cpu"))
    for g in range(2):
        part = slice(32 * g, 32 * g + 32)
        expected = (x[:, part] @ w[:, part].T).pow(2).mean(0)
        assert torch.allclose(((w[:, part] @ gram[g]) * w[:, part]).sum(-1), expected, rtol=1e-4)


def test_one_layer_has_weights_at_a_time_and_none_is_lost(tiny_llama: Path, tmp_path: Path) -> None:
    """The files written are the folder's own tensors, layer by layer, where nothing was done to them in between."""
    from safetensors.torch import load_file

    whole = LayerwiseModel(tiny_llama, torch.float32)
    whole.load(0)
    for number in whole.turns(range(len(whole.layers)), tmp_path):
        present = [i for i, layer in enumerate(whole.layers) if not any(p.is_meta for p in layer.parameters())]
        assert present == [number]
    whole.finish(tmp_path, {"quant_method": "awq"})
    written = {name: tensor for path in tmp_path.glob("*.safetensors") for name, tensor in load_file(path).items()}
    source = load_file(tiny_llama / "model.safetensors")
    assert written.keys() == source.keys() == set(Weights(tmp_path))
    assert all(torch.equal(written[name], source[name]) and written[name].dtype == source[name].dtype for name in source)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == {"quant_method": "awq"}


def test_squared_error_is_that_of_all_values() -> None:
    a, b = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert squared_error(a, b) == pytest.approx(float((a - b).pow(2).sum()), rel=1e-5)
    assert squared_error(a, a) == 0


@pytest.mark.parametrize("place", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(1, 4).map(lambda n: 32 * n),
    groups=st.integers(1, 4),
    group_size=st.sampled_from([32, 64, 128]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    size=st.sampled_from([1e-6, 1e-3, 0.02, 1.0, 300.0]),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_packing_is_autoawq_s_to_the_bit(
    place: str, out: int, groups: int, group_size: int, dtype: torch.dtype, size: float, bias: bool, seed: int
) -> None:
    """Oracle: autoawq's packing, column by column, of weights rounded to the grid by its own code.

    Groups of one sign, of zeros, and of a single value have their own zero points.
    """
    if place == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    weight = uneven(out, groups * group_size, seed).clamp(-30, 30) * size
    weight[: out // 4] = weight[: out // 4].abs()
    weight[0], weight[1] = 0, -size
    linear = torch.nn.Linear(groups * group_size, out, bias=bias, dtype=dtype, device=place)
    rounded, scales, zeros = quantizer(group_size).pseudo_quantize_tensor(weight.to(place, dtype))
    linear.weight.data = rounded
    parts = (scales.t().contiguous(), zeros.t().contiguous())
    ours = pack_linear(linear, group_size, *parts)
    with torch.no_grad():
        theirs = WQLinear_GEMM.from_linear(linear, 4, group_size, scales=parts[0], zeros=parts[1])
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        mine = ours.state_dict()[name]
        # autoawq's own words lie on whichever device it packed them on.
        assert mine.dtype == value.dtype and mine.is_contiguous() and torch.equal(mine.cpu(), value.cpu()), name
    if dtype == torch.float16:
        restored = dequantize(ours.qweight, ours.qzeros, ours.scales)
        assert torch.allclose(restored, rounded.float(), rtol=2**-10, atol=2**-24)


class ByAutoawq(CheckedQuantizer):
    """Inputs and packing as autoawq has them: a copy a linear, column by column."""

    def _get_input_feat(self, layer: Any, named_linears: Any) -> Any:
        self._layer_input = self.inps
        return AwqQuantizer._get_input_feat(self, layer, named_linears)

    def _apply_quant(self, module: Any, named_linears: Any) -> None:
        self._check_layer(module, named_linears)
        AwqQuantizer._apply_quant(self, module, named_linears)


def quantized(source: Path, target: Path, skip: tuple[str, ...] = ()) -> list[float]:
    """Quantize a model folder on random tokens, four blocks of 32; the layers' errors."""
    given_ = Input(path=source.parent, fingerprint="x")
    prompt = PromptSpec(template="{prompt}{response_a}{response_b}")
    spec = QuantizeSpec(group_size=32, calibration_rows=4, calibration_tokens=32, skip_modules=skip)
    request = QuantizeRequest(entry="tiny", model=given_, battles=given_, held=Held(), prompt=prompt, spec=spec)
    blocks = torch.randint(3, 300, (4, 32), generator=torch.Generator().manual_seed(0)).tolist()
    return quantize.quantize(source, target, blocks, request)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("heads", [1, 2])  # with as many as there are queries the values scale the attention's output
def test_a_checkpoint_is_what_autoawq_s_inputs_and_packing_give(
    heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tiny_llama(tmp_path / "source" / "model", num_key_value_heads=heads, attention_bias=True)
    errors = quantized(source, tmp_path / "ours")
    monkeypatch.setattr(awq_quantizer, "CheckedQuantizer", ByAutoawq)
    assert quantized(source, tmp_path / "theirs") == errors
    assert len(files_of(tmp_path / "theirs")) == 5 and files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_inputs_that_are_kept_on_the_host_give_the_same_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the card is short of memory for the searches, the linears' inputs wait for them on the CPU."""
    source = write_tiny_llama(tmp_path / "source" / "model", num_key_value_heads=2)
    errors = quantized(source, tmp_path / "roomy")
    places, keep = set(), Features.keep

    def kept(self: Features, name: str, linear: Any, args: Any) -> None:
        keep(self, name, linear, args)
        places.update(x.device.type for x in self.values())

    monkeypatch.setattr(Features, "keep", kept)
    monkeypatch.setattr(awq_quantizer, "free_bytes", lambda _: 0)
    assert quantized(source, tmp_path / "short") == errors and places == {"cpu"}
    assert files_of(tmp_path / "short") == files_of(tmp_path / "roomy")


LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SKIPPED = (LINEARS[:3], ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))  # engines multiply some as one matrix


@pytest.mark.parametrize("skip", SKIPPED, ids="+".join)
def test_skipped_linears_stay_as_they_are_and_the_rest_is_quantized(skip: tuple[str, ...], tmp_path: Path) -> None:
    """Also where they are scaled with others: what the whole computes changes by no more than 4 bits change it."""
    from transformers import AutoModelForCausalLM

    source = write_tiny_llama(tmp_path / "source" / "model", num_key_value_heads=2)
    assert max(quantized(source, tmp_path / "made", skip)) < 0.4
    made = Weights(tmp_path / "made")
    for name in LINEARS:
        module = f"model.layers.1.{'mlp' if name in LINEARS[4:] else 'self_attn'}.{name}"
        assert (f"{module}.qweight" in made) == (name not in skip) == (f"{module}.weight" not in made)
        assert name not in skip or made.read(f"{module}.weight").dtype == torch.bfloat16
    write_dequantized(tmp_path / "made", tmp_path / "plain")
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        folders = (source, tmp_path / "plain")
        before, after = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)(ids).logits for f in folders)
    assert 0 < (after - before).norm() < 0.3 * before.norm()


def test_soft_capped_attention_is_quantized(tmp_path: Path) -> None:
    """Gemma 2's attention takes a mask for each block, also where one block is run to check a layer."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    shape = {"vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
    config = Gemma2Config(**shape, num_attention_heads=2, num_key_value_heads=1)
    torch.manual_seed(0)
    Gemma2ForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "source" / "model")
    assert max(quantized(tmp_path / "source" / "model", tmp_path / "made")) < 0.4


def test_linears_have_one_tensor_where_they_share_an_input_and_a_scale() -> None:
    """c is scaled apart, d not at all: what is done to a and b's copy must not reach theirs, nor the layer's own tensor."""
    linears = {name: torch.nn.Linear(8, 8) for name in "abcd"}
    features, x, x_before = Features([[linears["a"], linears["b"]], [linears["c"]]]), torch.ones(1, 2, 8), torch.ones(1, 2, 8)
    for name, linear in linears.items():
        features.keep(name, linear, (x,))
    features.close()
    assert features["a"] is features["b"] and [name for name in linears if name in features] == ["a", "c", "d"]
    for name in linears:  # as autoawq does
        if name in features:
            features[name].div_(2 if name in "ab" else 1)
    assert [float(features[name][0, 0, 0]) for name in "abcd"] == [0.5, 0.5, 1, 1]
    assert torch.equal(x, x_before)
    kept = features["a"]
    features.drop()
    assert kept.numel() == 0
