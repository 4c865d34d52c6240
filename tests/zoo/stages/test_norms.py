"""Norms in one kernel: transformers' numbers and gradients, and no output kept that can be made again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.stages.norms import FusedNorm, computed_from, fuse_norm, source_of


def norm_of(family: str, dtype: torch.dtype) -> Any:
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(0)
    norm = {"llama": LlamaRMSNorm, "gemma2": Gemma2RMSNorm, "gemma3": Gemma3RMSNorm}[family](64, eps=1e-3).to(dtype)
    torch.nn.init.normal_(norm.weight, std=0.5)
    return norm.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_a_fused_norm_is_transformers_own(family: str, dtype: torch.dtype, place: str) -> None:
    norm = norm_of(family, dtype).to(place)
    x = torch.randn(3, 50, 64, device=place).to(dtype).requires_grad_()
    g = torch.randn(3, 50, 64, device=place).to(dtype)
    expected = norm(x)
    (wanted,) = torch.autograd.grad(expected, x, g)
    fuse_norm(norm)
    assert isinstance(norm.forward, FusedNorm) and norm.forward.wide == family.startswith("gemma")
    ours = norm(x)
    (gradient,) = torch.autograd.grad(ours, x, g)
    near = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    assert ours.dtype == dtype and gradient.dtype == dtype
    assert (ours - expected).norm() <= near * expected.norm() and (gradient - wanted).norm() <= near * wanted.norm()
    source, again = source_of(ours)
    assert source is x and again is not None and torch.equal(again(x), ours)


@pytest.mark.parametrize("weight", [20.0, 60.0, 300.0])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_large_weights_are_no_reason_to_take_one_kind_for_the_other(family: str, weight: float) -> None:
    """Gemma 3's are up to 60: its 1 + weight and a plain weight are within 2 % there."""
    norm = norm_of(family, torch.bfloat16)
    norm.weight.add_(weight)
    x = torch.randn(5, 64).bfloat16()
    expected = norm(x)
    fuse_norm(norm)
    assert isinstance(norm.forward, FusedNorm) and norm.forward.wide == family.startswith("gemma")
    assert (norm(x) - expected).norm() <= 4e-3 * expected.norm()


def test_a_norm_s_epsilon_is_the_module_s_when_it_runs() -> None:
    """Scaled for float16 after it was fused (zoo/stages/gemma_float16.py)."""
    norm, plain = norm_of("gemma2", torch.float32), norm_of("gemma2", torch.float32)
    fuse_norm(norm)
    norm.eps = plain.eps = 3.0
    x = torch.randn(4, 64)
    torch.testing.assert_close(norm(x), plain(x))


class EpsilonOutside(torch.nn.Module):
    """Norms that differ from Llama's little, where values are near 1 and weights near 60."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(torch.full((64,), 60.0, dtype=dtype)), 1e-3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps) * self.weight


class PlusTwo(EpsilonOutside):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (64,), (self.weight + 2).to(x.dtype), self.eps)


class Gated(EpsilonOutside):
    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        y = torch.nn.functional.rms_norm(x, (64,), self.weight, self.eps)
        return y if gate is None else y * gate


def test_other_norms_stay_where_16_bits_hardly_tell_them_apart() -> None:
    for kind in (EpsilonOutside, PlusTwo):
        module = kind(torch.bfloat16).requires_grad_(False)
        fuse_norm(module)
        assert not isinstance(module.forward, FusedNorm)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_norm_of_queries_has_its_gradient_whatever_lies_next_to_what(family: str, place: str) -> None:
    """Queries and their gradients are (batch, heads, tokens, size) by their shape, and lie with tokens before heads."""
    norm = norm_of(family, torch.bfloat16).to(place)
    x, g = (torch.randn(3, 50, 4, 64, device=place).bfloat16().transpose(1, 2) for _ in range(2))
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(norm(x), x, g)
    fuse_norm(norm)
    assert isinstance(norm.forward, FusedNorm) and not x.is_contiguous() and not g.is_contiguous()
    (gradient,) = torch.autograd.grad(norm(x), x, g)
    assert (gradient - wanted).norm() <= 1e-2 * wanted.norm()


def test_what_is_no_such_norm_or_is_trained_stays_as_it_is() -> None:
    others = (EpsilonOutside(), PlusTwo(), Gated())
    for module in (torch.nn.LayerNorm(64), torch.nn.LayerNorm(64, bias=False), torch.nn.Linear(8, 8), *others):
        fuse_norm(module.requires_grad_(False))
        assert not isinstance(module.forward, FusedNorm)
    trained = norm_of("llama", torch.float32).requires_grad_()
    fuse_norm(trained)
    assert not isinstance(trained.forward, FusedNorm)


def test_a_tensor_of_which_nothing_is_known_is_kept_itself() -> None:
    x = torch.randn(3)
    assert source_of(x) == (x, None)
    y = computed_from(2 * x, x, lambda source: 2 * source)
    source, again = source_of(y)
    assert source is x and again is not None and torch.equal(again(source), y)
    assert source_of(y + 1)[1] is None
