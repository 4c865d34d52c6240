"""Root-mean-square norms whose output nobody keeps for a backward pass.

It is one fast kernel over the norm's input, which is a part of the residual stream and there anyway. So the linear layers that
read it keep that input, and compute the norm again in the backward pass. Gemma's norms, which transformers computes in float32
in nine kernels and keeps much of, are one kernel as well, and keep their 16-bit input.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

SMALL = 1e-3  # of a sample: values whose norm an epsilon near 1e-6 moves
SOURCE = "_zoo_source"  # attribute of a tensor: what it was computed from, and how

Again = Callable[[torch.Tensor], torch.Tensor]


def computed_from(x: torch.Tensor, source: torch.Tensor, again: Again) -> torch.Tensor:
    """Note on `x` that it is `again(source)`, for whoever would keep it."""
    setattr(x, SOURCE, (source, again))
    return x


def source_of(x: torch.Tensor) -> tuple[torch.Tensor, Again | None]:
    """What to keep of `x` for a backward pass, and how `x` comes of it.

    `x` itself and None where nothing is noted on it.
    """
    found: tuple[torch.Tensor, Again | None] = getattr(x, SOURCE, (x, None))
    return found


class FusedNorm:
    """The forward pass of a root-mean-square norm, x / rms(x) * scale, by torch's own kernel.

    `wide`: in float32 with the scale 1 + weight, rounded at the end, as Gemma's; else in the weight's dtype, as Llama's.
    `output`: the dtype of what it gives; None: its input's. `module`, whose pass it is, is asked for its epsilon each time: it
    may change.
    """

    def __init__(self, module: Any, eps: str, *, wide: bool) -> None:
        self.module, self.eps, self.wide = module, eps, wide
        self.output: torch.dtype | None = None
        weight = module.weight.detach()
        self.scale = 1.0 + weight.float() if wide else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _WideNorm.apply(x, self) if self.wide else self.value(x)
        return computed_from(y, x, self.value)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """What it gives of x."""
        y = F.rms_norm(x.to(self.scale.dtype), self.scale.shape, self.scale, self.epsilon())
        return y.to(self.output or x.dtype)

    def epsilon(self) -> float:
        return float(getattr(self.module, self.eps))


class _WideNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, norm: FusedNorm) -> torch.Tensor:
        y, inverse = torch.ops.aten._fused_rms_norm(x.float(), norm.scale.shape, norm.scale, norm.epsilon())
        ctx.save_for_backward(x, inverse)  # 1 / rms(x), a value a token
        ctx.scale = norm.scale
        result: torch.Tensor = y.to(norm.output or x.dtype)
        return result

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, inverse = ctx.saved_tensors
        return _gradient(g.float(), x.float(), inverse, ctx.scale).to(x.dtype), None


def _gradient(g: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The gradient of x in float32 for the gradient g of x * inverse * scale."""
    if x.is_cuda:  # torch's own backward kernel, which has no form for processors
        gradient: torch.Tensor
        gradient, _ = torch.ops.aten._fused_rms_norm_backward(g, x, scale.shape, inverse, scale, [True, False])
        return gradient
    g = g * scale
    return (g - x * (g * x).mean(-1, keepdim=True) * inverse.square()) * inverse


def fuse_norm(module: Any) -> None:
    """Compute a root-mean-square norm by torch's own kernel, if that gives the same.

    Llama's, which multiplies rounded values by its weight, and Gemma's, which rounds after multiplying by 1 + weight.
    """
    eps = next((name for name in ("variance_epsilon", "eps") if isinstance(getattr(module, name, None), float)), None)
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if eps is None or weight is None or bias is not None or weight.dim() != 1 or weight.requires_grad:
        return
    if not takes_one_tensor(module):  # a gated norm
        return
    # In float32, which is rounded nowhere between: where weights are near 60, 16 bits hardly tell one kind from the other.
    x = torch.linspace(-3, 3, 2 * len(weight), device=weight.device).view(2, -1)
    x = torch.cat([x, SMALL * x])
    with torch.no_grad():
        expected = module(x)
        apart = {wide: largest_difference(_plain(module, eps, x, wide=wide), expected) for wide in (False, True)}
    nearest = min(apart, key=apart.__getitem__)
    if apart[nearest] <= rounding(expected.dtype):
        module.forward = FusedNorm(module, eps, wide=nearest)


def _plain(module: Any, eps: str, x: torch.Tensor, *, wide: bool) -> torch.Tensor:
    scale = 1.0 + module.weight.float() if wide else module.weight.float()
    result: torch.Tensor = F.rms_norm(x, scale.shape, scale, float(getattr(module, eps)))
    return result


# --- whether a replacement gives the same ------------------------------------------------------------------------------


def takes_one_tensor(module: Any) -> bool:
    """Whether a module's pass is a function of one tensor: others would not reach a replacement."""
    return len(inspect.signature(module.forward).parameters) == 1


def largest_difference(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """Of a row, relative to it: rows of small values count as much as those of large ones.

    Rows that are not finite as they should be say nothing; infinite where all of them are so.
    """
    a, b = ours.float(), expected.float()
    finite = torch.isfinite(b).all(-1)
    if not finite.any():
        return float("inf")
    apart = float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-30))[finite].max())
    return float("inf") if math.isnan(apart) else apart


def rounding(dtype: torch.dtype) -> float:
    """What two computations of one thing may differ by, relative to it.

    The distance of neighbouring numbers near 1.
    """
    return max(1e-5, float(torch.finfo(dtype).eps))
