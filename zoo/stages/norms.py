"""Root-mean-square norms whose output nobody keeps for a backward pass.

It is one fast kernel over the norm's input, which is a part of the residual stream and there anyway. So the linear layers that
read it keep that input, and compute the norm again in the backward pass. Gemma's norms, which transformers computes in float32
in nine kernels and keeps much of, are one kernel as well, and keep their 16-bit input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

SAME = 2e-2  # relative difference of two 16-bit computations of one thing
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
    with torch.no_grad():
        x = torch.linspace(-3, 3, 2 * len(weight), device=weight.device, dtype=weight.dtype).view(2, -1)
        expected = module(x).float()
        norms = [FusedNorm(module, eps, wide=wide) for wide in (False, True)]
        apart = [float((norm.value(x).float() - expected).norm() / expected.norm()) for norm in norms]
    nearest = min(range(len(norms)), key=apart.__getitem__)  # where weights are near 50, either is within a few percent
    if apart[nearest] <= SAME:
        module.forward = norms[nearest]
