"""Smoothing of a decoder layer: what is hard to round in activations is moved into weights.

Dividing a channel of a linear layer's input by a scale and multiplying its weights by it changes nothing (SmoothQuant, Xiao et
al. 2022, arXiv 2211.10438). The division is done by what makes the input: a norm's weight, or the rows of a linear layer that
the input is linear in. Scales of rows are powers of two, which 16-bit weights bear without rounding; a norm's are what the
norm's own rounded weights make of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

SHARES = (0.4, 0.6, 0.8)  # of activations in a scale; the rest is of weights
LEAST_NORM = 1e-3  # of a norm's factor: channels that it shuts off are left as they are


@dataclass(frozen=True)
class Site:
    """Linears that share an input, and what makes it: a norm, or a linear's rows.

    All by their names in the layer. `repeats`: how many blocks of inputs each block of rows makes, as query heads share a
    value head; `block`: rows of one.
    """

    source: str
    linears: tuple[str, ...]
    is_norm: bool
    block: int = 0
    repeats: int = 1


def sites_of(layer: torch.nn.Module, head_dim: int) -> tuple[Site, ...]:
    """The sites of a Llama-like decoder layer, in the order in which they are computed."""
    modules = dict(layer.named_modules())
    values, output = modules["self_attn.v_proj"], modules["self_attn.o_proj"]
    before_mlp = next(name for name in ("pre_feedforward_layernorm", "post_attention_layernorm") if name in modules)
    heads = output.in_features // values.out_features
    return (
        Site("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), is_norm=True),
        Site("self_attn.v_proj", ("self_attn.o_proj",), is_norm=False, block=head_dim, repeats=heads),
        Site(before_mlp, ("mlp.gate_proj", "mlp.up_proj"), is_norm=True),
        Site("mlp.up_proj", ("mlp.down_proj",), is_norm=False),
    )


def rows_of(site: Site, channels: torch.Tensor) -> torch.Tensor:
    """The largest of the inputs (channels,) that each of the source's rows makes."""
    if site.repeats == 1:
        return channels
    return channels.view(-1, site.repeats, site.block).amax(1).flatten()


def channels_of(site: Site, rows: torch.Tensor) -> torch.Tensor:
    """The inputs' scales (channels,) of the scales of the source's rows."""
    if site.repeats == 1:
        return rows
    return rows.view(-1, 1, site.block).expand(-1, site.repeats, -1).flatten()


def trials(site: Site, x_largest: torch.Tensor, w_largest: torch.Tensor) -> Iterator[torch.Tensor]:
    """Scales (rows,) to try: mixtures of the largest activations and weights.

    `x_largest` and `w_largest` are (channels,). Of a linear's rows powers of two.
    """
    x, w = (rows_of(site, values).clamp_min(1e-5) for values in (x_largest, w_largest))
    for share in SHARES:
        scales = x.pow(share) / w.pow(1 - share)
        scales = (scales / (scales.max() * scales.min()).sqrt()).clamp(2**-8, 2**8)
        yield scales if site.is_norm else scales.log2().round().exp2()


def scaled_norm(weight: torch.Tensor, scales: torch.Tensor, *, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A norm's weight divided by scales, and the scales that this makes.

    All (channels,), both float32. `offset`: 1 where the norm multiplies by 1 + weight (Gemma), else 0. The weight is one that
    bfloat16 bears, so that it is the same whatever the file and the engine keep it in: of a float32 file an engine would round
    it anew, near -1 for Gemma in steps of 2^-8.
    """
    factor = weight.float() + offset
    made = (factor / scales - offset).to(torch.bfloat16).float()
    became = made + offset
    usable = (factor.abs() > LEAST_NORM) & (became.abs() > LEAST_NORM) & torch.isfinite(became)
    made = torch.where(usable, made, weight.float())
    return made, torch.where(usable, factor / torch.where(usable, became, 1.0), 1.0)


def norm_offset(norm: torch.nn.Module) -> float:
    """1 for a norm that multiplies by 1 + weight (Gemma's), 0 for others.

    Told by what it does with weights of 0.
    """
    weight = norm.weight
    probe = torch.randn(2, weight.shape[0], device=weight.device, generator=torch.Generator(weight.device).manual_seed(0))
    kept = weight.data
    try:
        weight.data = torch.zeros_like(kept)
        return float(norm(probe.to(kept.dtype)).abs().max() > 0)
    finally:
        weight.data = kept
