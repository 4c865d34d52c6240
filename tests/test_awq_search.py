"""AWQ's searches, against autoawq's own code and against plain arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from awq.quantize.quantizer import AwqQuantizer

from zoo.stages.awq_quantizer import CheckedQuantizer, group_gram, squared_error
from zoo.stages.layerwise import LayerwiseModel, Weights


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
