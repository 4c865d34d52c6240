"""Triton kernels of training against float64 with a mask that numpy draws: interpreted on a processor, and on a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.stages import device, progress
from zoo.stages.train import dropout, fused, pointwise

ROOT = Path(__file__).parents[4]
needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")


def mask_of(tokens: int, inputs: int, rate: float, seed: int, first: int = 0) -> np.ndarray:
    """Which values are kept, from row `first` on: lowbias32 of a place serves a value in each half of a row, 16 bits each."""
    half = -(-inputs // 32) * 16
    rows = np.arange(first, tokens, dtype=np.uint32)[:, None]
    x = (rows * np.uint32(half) + np.arange(half, dtype=np.uint32)) ^ np.uint32(seed % 2**31)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x += np.uint32(seed >> 31)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    words = np.concatenate([x % np.uint32(2**16), x >> np.uint32(16)], axis=1)
    return (words >= round(rate * 2**16))[:, :inputs]


def expected(found: dict[str, Any], rate: float, seed: int, scale: float) -> dict[str, torch.Tensor]:
    """The products in float64."""
    x, a, through, before = (found[name].double() for name in ("x", "a", "through", "before"))
    mask = torch.from_numpy(mask_of(*x.shape, rate, seed)).to(x.device) / (1 - round(rate * 2**16) / 2**16)
    return {
        "product": (x * mask) @ a.T,
        "grad_a": scale * through.T @ (x * mask),
        "grad_x": before + scale * (through @ a) * mask,
    }


# --- interpreted -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    out = tmp_path_factory.mktemp("kernels") / "found.safetensors"
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.interpreted_kernels", str(out)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, check=True)
    return load_file(out)


@needs_triton
def test_products_and_gradients_are_those_of_one_mask(interpreted: dict[str, torch.Tensor]) -> None:
    from tests.helpers.interpreted_kernels import RATE, SCALE, SEED, SIZES

    for size in SIZES:
        found = {name.split("/")[1]: value for name, value in interpreted.items() if name.startswith(str(size))}
        for name, value in expected(found, RATE, SEED, SCALE).items():
            assert (found[name] - value).norm() <= 1e-3 * value.norm(), (size, name)
        assert found["grad_a"].dtype == torch.float32


@needs_triton
def test_the_check_at_the_start_takes_right_kernels_and_no_others(interpreted: dict[str, torch.Tensor]) -> None:
    checks = {name.removeprefix("check/"): float(v) for name, v in interpreted.items() if name.startswith("check/")}
    assert checks.pop("right") < dropout.CLOSE / 5
    assert len(checks) == 3 and all(value > 2 * dropout.CLOSE for value in checks.values()), checks


@needs_triton
@pytest.mark.parametrize("act", sorted(pointwise.PRODUCTS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gated_activations_are_torch_s(interpreted: dict[str, torch.Tensor], act: str, dtype: torch.dtype) -> None:
    assert interpreted[f"{act}/{dtype}"] < pointwise.CLOSE  # 0.0077 in bfloat16, to which the interpreter does not round


# --- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_as_many_are_kept_as_asked(rate: float) -> None:
    """In all, in each half of the rows, in each column and row, within what chance moves."""
    mask = mask_of(600, 4096, rate, 12345)
    for part in (mask, mask[:, :2048], mask[:, 2048:]):
        assert abs(part.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / part.size)
    for axis in (0, 1):
        z = (mask.mean(axis=axis) - (1 - rate)) / np.sqrt(rate * (1 - rate) / mask.shape[axis])
        assert abs(z).max() < 6 and z.std() == pytest.approx(1, abs=0.1)


def test_masks_of_other_seeds_and_neighbours_tell_nothing_of_each_other() -> None:
    torch.manual_seed(0)  # seeds as a training draws them
    first, *others = [mask_of(600, 4096, 0.5, fused._seed()) for _ in range(6)]
    shifted = [np.roll(first, 1, axis) for axis in (0, 1)] + [np.roll(first, 2048, 1), np.roll(first, 2, 0)]
    for other in (*others, *shifted):
        assert abs(np.mean(first == other) - 0.5) < 5 * 0.5 / np.sqrt(first.size)


# --- where they do not work --------------------------------------------------------------------------------------------


def test_why_kernels_are_not_taken_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(progress, "note", told.append)

    def fails(*_: Any) -> float:
        raise RuntimeError("Failed to find C compiler")

    for module, wanted in ((dropout, "dropout"), (pointwise, "gated activations")):
        module.kernels_for.cache_clear()
        module._none.cache_clear()
        monkeypatch.setattr(module, "largest_difference", fails)
        arguments: list[tuple[Any, ...]] = [(torch.float16, 8, 64), (torch.float16, 8, 128)]
        if module is pointwise:
            arguments = [("silu", torch.float16), ("gelu", torch.float16)]
        assert [module.kernels_for(*a) for a in arguments] == [None, None]
        assert len(told) == 1 and told[0].startswith(wanted), told
        assert not importlib.util.find_spec("triton") or "Failed to find C compiler" in told[0]
        told.clear()
        module.kernels_for.cache_clear()
        module._none.cache_clear()


@needs_triton
@pytest.mark.parametrize(("dtype", "rank"), [(torch.float32, 16), (torch.bfloat16, 129)])
def test_what_there_are_no_kernels_for_is_left_to_torch(dtype: torch.dtype, rank: int) -> None:
    assert dropout.kernels_for(dtype, rank, 64) is None


def test_torch_s_own_path_has_the_gradients_of_its_product() -> None:
    """By autograd, with the mask that the product of an identity shows."""
    generator = torch.Generator().manual_seed(0)
    x, a, g = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 20), (4, 20), (9, 4)))
    mask = dropout.product(torch.ones_like(x), torch.eye(20, dtype=torch.float64), 0.4, 7)
    x.requires_grad_(), a.requires_grad_()
    wanted = torch.autograd.grad(((x * mask) @ a.T * g).sum(), (x, a))
    assert torch.allclose(dropout.product(x.detach(), a.detach(), 0.4, 7), (x * mask) @ a.T)
    grad_x = torch.zeros_like(x)
    grad_a = dropout.add_gradients(grad_x, x.detach(), g, a.detach(), 0.4, 7, 2.0)
    assert torch.allclose(grad_x, 2 * wanted[0]) and torch.allclose(grad_a, 2 * wanted[1].float())


# --- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernels() -> Any:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    from zoo.stages.train import kernels

    return kernels


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "inputs", "rank"), [(4096, 4096, 16), (1000, 14336, 16), (8191, 4096, 64), (1, 576, 8), (77, 1000, 100)]
)
def test_kernels_on_the_card(kernels: Any, dtype: torch.dtype, tokens: int, inputs: int, rank: int) -> None:
    assert dropout.kernels_for(dtype, rank, inputs) is kernels
    rate, seed, scale = 0.05, 2**61 + 98765, 2.0
    torch.manual_seed(0)
    shapes = {"x": (tokens, inputs), "a": (rank, inputs), "through": (tokens, rank), "before": (tokens, inputs)}
    found = {name: torch.randn(shape, device="cuda").to(dtype) for name, shape in shapes.items()}
    found["product"] = dropout.product(found["x"], found["a"], rate, seed)
    found["grad_x"] = found["before"].clone()
    found["grad_a"] = dropout.add_gradients(found["grad_x"], found["x"], found["through"], found["a"], rate, seed, scale)
    near = {"product": 4e-3, "grad_x": 4e-3, "grad_a": 1e-5}
    for name, value in expected(found, rate, seed, scale).items():
        assert (found[name] - value).norm() <= near[name] * value.norm(), name
    again = dropout.product(found["x"], found["a"], rate, seed)
    assert torch.equal(again, found["product"]), "the same sums in the same order"


@pytest.mark.gpu
@needs_triton
def test_more_values_than_32_bits_count(kernels: Any) -> None:
    """The last of 2.3 billion values: their places in memory and in the mask are counted on."""
    tokens, inputs, rate, seed = 160_000, 14336, 0.5, 77
    x = torch.zeros(tokens, inputs, device="cuda", dtype=torch.bfloat16)
    through, a = x.new_ones(tokens, 16), x.new_zeros(16, inputs)
    a[0] = 1
    kernels.add_gradient_of_x(x, through, a, rate, seed, 1.0)
    mask = torch.from_numpy(mask_of(tokens, inputs, rate, seed, tokens - 3)).cuda()
    assert torch.equal(x[-3:], 2 * mask.bfloat16())
    through[:-3] = 0
    a.normal_()
    wide = x[-3:].double() * mask * 2
    for ours, theirs in (
        (kernels.dropped_product(x, a, rate, seed)[-3:], wide @ a.double().T),
        (kernels.gradient_of_a(x, through, rate, seed, 1.0), through[-3:].double().T @ wide),
    ):
        assert (ours - theirs).norm() <= 4e-3 * theirs.norm()


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dropout_rate", [0.0, 0.05])
@pytest.mark.parametrize("inputs", [4096, 14336])
def test_a_fused_layer_is_peft_s(kernels: Any, inputs: int, dropout_rate: float) -> None:
    """Output and gradients of a layer of the size trained most, against peft's in float32; its dropout by the drawn mask."""
    from peft import LoraConfig, get_peft_model

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(inputs, 1024, bias=False)

    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=dropout_rate, target_modules=["linear"], init_lora_weights=False)
    model = get_peft_model(Layer(), config).cuda()
    linear = model.base_model.model.linear
    x, g = torch.randn(2, 500, inputs, device="cuda"), torch.randn(2, 500, 1024, device="cuda")
    dtype = device.compute_dtype()
    seed = 2**60 + 3
    pair = linear.lora_A["default"].weight, linear.lora_B["default"].weight
    mask = dropout.drawn_mask(kernels, x.view(-1, inputs).to(dtype), 16, dropout_rate, seed).view_as(x)

    wide = x.to(dtype).float().requires_grad_()
    weight = linear.base_layer.weight.detach().to(dtype)
    y = wide @ weight.float().T + 2 * (wide * mask) @ pair[0].T @ pair[1].T
    wanted = (y, *torch.autograd.grad(y, (wide, *pair), g))
    if not dropout_rate:
        assert torch.allclose(linear(x), x @ linear.base_layer.weight.T + 2 * x @ pair[0].T @ pair[1].T, rtol=1e-3, atol=1e-2)

    linear.base_layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    m = fused.AdaptedLinear(linear)
    narrow = x.to(dtype).requires_grad_()
    ours = fused._Linear.apply(narrow, *pair, m, dropout_rate, seed)
    found = (ours, *torch.autograd.grad(ours, (narrow, *pair), g.to(dtype)))
    for name, ours, theirs in zip(("y", "x", "a", "b"), found, wanted, strict=True):
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm(), name
