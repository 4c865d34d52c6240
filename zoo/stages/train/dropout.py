"""Dropout in front of a LoRA pair: its product and gradients, the mask drawn again in each.

By Triton kernels where they take dtype and rank and give torch's numbers here, else by torch's own, which go over memory seven
times forward and fourteen backward. The two draw different masks from one seed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from zoo.stages import progress
from zoo.targets.capabilities import AMPERE

CLOSE = 1e-2  # relative difference of a 16-bit result and the same in float32
SAMPLE_TOKENS, SAMPLE_RATE, SAMPLE_SEED = 67, 0.25, 0x2B5AD4CE87A1F3D9


def product(x: torch.Tensor, a: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
    """drop(x) a^T, (tokens, rank), for x (tokens, inputs) and a (rank, inputs)."""
    if rate and (found := _kernels_of(x, a)):
        result: torch.Tensor = found.dropped_product(x.contiguous(), a, rate, seed)
        return result
    return (x * _mask(x, rate, seed) if rate else x) @ a.T


def add_gradients(
    grad_x: torch.Tensor, x: torch.Tensor, through: torch.Tensor, a: torch.Tensor, rate: float, seed: int, scale: float
) -> torch.Tensor:
    """Add to the gradient of x in place, and return that of A in float32.

    grad_x += scale * drop(through a), and scale * through^T drop(x): `through` (tokens, rank) is the gradient of what `product`
    gave, before the scale.
    """
    if not rate:
        grad_x.addmm_(through, a, alpha=scale)
        return (through.T @ x).float().mul_(scale)
    if found := _kernels_of(x, a):
        found.add_gradient_of_x(grad_x, through, a, rate, seed, scale)
        grad_a: torch.Tensor = found.gradient_of_a(x.contiguous(), through, rate, seed, scale)
        return grad_a
    mask = _mask(x, rate, seed)
    grad_x.add_((through @ a).mul_(mask), alpha=scale)
    return (through.T @ mask.mul_(x)).float().mul_(scale)


def _mask(x: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
    generator = torch.Generator(x.device).manual_seed(seed)
    return torch.empty_like(x).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


def _kernels_of(x: torch.Tensor, a: torch.Tensor) -> Any:
    return kernels_for(x.dtype, len(a), x.shape[1]) if x.is_cuda else None


@cache
def kernels_for(dtype: torch.dtype, rank: int, inputs: int) -> Any:
    """The module of kernels where it gives torch's numbers for these sizes, else None.

    Compiles them, and asks once: before the first step (`zoo.stages.train.fused.fuse`).
    """
    try:
        from zoo.stages.train import kernels
    except ImportError:
        return _none("triton is not installed")
    if dtype not in (torch.float16, torch.bfloat16):
        return _none(f"no kernels for {str(dtype).removeprefix('torch.')}")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < AMPERE:
        return _none("Triton multiplies without tensor cores on cards before Ampere")
    if rank > kernels.LARGEST_RANK:
        return _none(f"no kernels for ranks above {kernels.LARGEST_RANK}")
    try:
        apart = largest_difference(kernels, dtype, rank, inputs)
    except Exception as error:  # no C compiler, or a card that Triton does not know
        return _none(f"its kernels failed: {type(error).__name__}: {str(error)[:200]}")
    return kernels if apart < CLOSE else _none(f"its kernels are {apart:.3g} off torch's numbers")


@cache
def _none(why: str) -> None:
    progress.note(f"dropout by torch's own kernels, slower: {why}")


def largest_difference(kernels: Any, dtype: torch.dtype, rank: int, inputs: int, device: str = "cuda") -> float:
    """The kernels' largest relative difference from torch in float32.

    By the mask that they draw. Infinite where too few or too many values are kept.
    """
    generator = torch.Generator(device).manual_seed(0)
    tokens, rate, seed, scale = SAMPLE_TOKENS, SAMPLE_RATE, SAMPLE_SEED, 0.5

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    x, a, through, before = drawn(tokens, inputs), drawn(rank, inputs), drawn(tokens, rank), drawn(tokens, inputs)
    mask = drawn_mask(kernels, x, rank, rate, seed)
    spread = (rate * (1 - rate) / mask.numel()) ** 0.5
    if abs((mask > 0).float().mean().item() - (1 - rate)) > 6 * spread + 2**-16:
        return float("inf")
    grad_x = before.clone()
    kernels.add_gradient_of_x(grad_x, through, a, rate, seed, scale)
    pairs = [
        (kernels.dropped_product(x, a, rate, seed), (x * mask) @ a.float().T),
        (kernels.gradient_of_a(x, through, rate, seed, scale), through.float().T @ (x * mask) * scale),
        (grad_x, before + (through.float() @ a.float()) * mask * scale),
    ]
    differences = [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs]
    return max(differences) if all(d == d for d in differences) else float("inf")


def drawn_mask(kernels: Any, x: torch.Tensor, rank: int, rate: float, seed: int) -> torch.Tensor:
    """The mask that the kernels draw for x: 0 or one over the share kept, in float32.

    It is the gradient of x where `through a` is 1.
    """
    mask = torch.zeros_like(x)
    through, a = x.new_zeros(len(x), rank), x.new_zeros(rank, x.shape[1])
    through[:, 0], a[0] = 1, 1
    kernels.add_gradient_of_x(mask, through, a, rate, seed, 1.0)
    return (mask > 0).float() * kernels.kept_scale(rate)
