"""Gated activations, silu or gelu, and their gradients: one pass over memory on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from zoo.stages import progress

CLOSE = 1e-2  # relative difference of two 16-bit computations of one thing
Pair = tuple[torch.Tensor, torch.Tensor]


def product(act: str, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """act(gate) * up."""
    if gate.is_cuda and (found := kernels_for(act, gate.dtype)):
        result: torch.Tensor = found.gated_product(act, gate, up)
        return result
    return PRODUCTS[act](gate, up)


def gradients(act: str, g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> Pair:
    """Gradients of gate and up for the gradient g of act(gate) * up."""
    if gate.is_cuda and (found := kernels_for(act, gate.dtype)):
        result: Pair = found.gated_gradients(act, g, gate, up)
        return result
    return GRADIENTS[act](g, gate, up)


def silu_product(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return F.silu(gate) * up


def silu_gradients(g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> Pair:
    wide, s = gate.float(), torch.sigmoid(gate.float())
    grad_gate = g.float() * up.float() * s * (1 + wide * (1 - s))
    return grad_gate.to(gate.dtype), (g.float() * wide * s).to(up.dtype)


def gelu_product(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return F.gelu(gate, approximate="tanh") * up


def gelu_gradients(g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> Pair:
    x = gate.float()
    root, cubic = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the approximation's own constant
    t = torch.tanh(root * (x + cubic * x**3))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * cubic * x * x)
    grad_gate = g.float() * up.float() * slope
    return grad_gate.to(gate.dtype), (g.float() * 0.5 * x * (1 + t)).to(up.dtype)


PRODUCTS: dict[str, Callable[..., torch.Tensor]] = {"silu": silu_product, "gelu": gelu_product}
GRADIENTS: dict[str, Callable[..., Pair]] = {"silu": silu_gradients, "gelu": gelu_gradients}


@cache
def kernels_for(act: str, dtype: torch.dtype) -> Any:
    """The module of kernels where it gives the functions' numbers here, else None.

    Compiles them, and asks once.
    """
    try:
        from zoo.stages.train import kernels

        apart = largest_difference(kernels, act, dtype)
    except ImportError:
        return _none("triton is not installed")
    except Exception as error:  # no C compiler, or a card that Triton does not know
        return _none(f"its kernels failed: {type(error).__name__}: {str(error)[:200]}")
    return kernels if apart < CLOSE else _none(f"its kernels are {apart:.3g} off torch's numbers")


@cache
def _none(why: str) -> None:
    progress.note(f"gated activations by torch's own kernels, slower: {why}")


def largest_difference(kernels: Any, act: str, dtype: torch.dtype, device: str = "cuda") -> float:
    """The kernels' largest relative difference from the functions above.

    Over gates from -9 to 9: as many as leave the last block not full, and a multiple of 16, as in training.
    """
    gate = torch.linspace(-9, 9, 1504, device=device).to(dtype)
    g, up = torch.cos(3 * gate.float()).to(dtype), torch.sin(5 * gate.float()).to(dtype)
    ours = (kernels.gated_product(act, gate, up), *kernels.gated_gradients(act, g, gate, up))
    theirs = (PRODUCTS[act](gate, up), *GRADIENTS[act](g, gate, up))
    differences = [float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(ours, theirs, strict=True)]
    return max(differences) if all(d == d for d in differences) else float("inf")
