"""Gemma 2 and 3 in float16, rescaled so that nothing exceeds 65504.

The function is the same, computed on smaller numbers. An RMS norm divides by the size of what it reads, so RMSNorm(s x; s^2
eps) = RMSNorm(x; eps) for any s. Every decoder layer of Gemma 2 and 3 has a norm before and after attention and feed-forward,
and each can overflow in three places:

- the residual stream: embeddings and the outputs of the two post-norms are made times s;
- what attention adds up: values are taken times s;
- what the feed-forward part adds up: gate and up are multiplied with up times s.

Then all that a norm reads is times s, and every norm's eps becomes s^2 eps. With s a power of two no mantissa changes: results
differ from the model's only where a number falls below float16's normal range, 2^-14. Weights and adapters stay as
they are. Rewriting the norms' weights in a file instead is not exact: they are stored as w - 1, near -1 in steps of 2^-11.

vLLM 0.32 and 0.26 were read for this (vllm/model_executor/models/gemma2.py and gemma3.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm import ir
from vllm.model_executor.layers.layernorm import GemmaRMSNorm
from vllm.model_executor.models.gemma2 import Gemma2ForCausalLM
from vllm.model_executor.models.gemma3 import Gemma3ForCausalLM

BITS = "float16_rescale_bits"  # in the model's config, put there by `zoo.stages.score.vllm.plugin.rescale_overrides`


class RescaledGemma2ForCausalLM(Gemma2ForCausalLM):
    """Gemma 2 with everything that a norm reads times 2^-config.float16_rescale_bits."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        rescale(self.model, getattr(vllm_config.model_config.hf_config, BITS))


class RescaledGemma3ForCausalLM(Gemma3ForCausalLM):
    """Gemma 3 (text) with everything that a norm reads times 2^-config.float16_rescale_bits."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        rescale(self.model, getattr(vllm_config.model_config.hf_config, BITS))


def rescale(model: nn.Module, bits: int) -> None:
    """Change a Gemma2Model or Gemma3Model of vLLM in place, before its weights are loaded."""
    scale = 2.0**-bits
    model.normalizer.mul_(scale)
    model.norm.variance_epsilon *= scale**2
    for layer in model.layers:
        if hasattr(layer, "input_layernorm"):  # in a pipeline the other cards' layers are placeholders
            rescale_layer(layer, scale)


def rescale_layer(layer: nn.Module, scale: float) -> None:
    for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
        norm = getattr(layer, name)
        setattr(layer, name, ScaledGemmaRMSNorm(norm.weight.shape[0], norm.variance_epsilon, scale))
    for name in (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ):
        getattr(layer, name).variance_epsilon *= scale**2
    layer.self_attn.attn = ScaledValues(layer.self_attn.attn, scale)
    layer.mlp.act_fn = ScaledUp(layer.mlp.act_fn, scale)


class ScaledGemmaRMSNorm(GemmaRMSNorm):
    """Gemma's norm whose output is times `scale`.

    The product is made in float32, where nothing overflows.
    """

    def __init__(self, hidden_size: int, eps: float, scale: float) -> None:
        super().__init__(hidden_size, eps=eps)
        self.scale = scale

    def forward_native(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        weight = (self.weight.float() + 1.0) * self.scale
        if residual is None:
            return ir.ops.rms_norm(x, weight, self.variance_epsilon)
        return ir.ops.fused_add_rms_norm(x, residual, weight, self.variance_epsilon)


class ScaledValues(nn.Module):
    """Attention on values times `scale`.

    The layer inside keeps the name under which the engine knows it.
    """

    def __init__(self, attention: nn.Module, scale: float) -> None:
        super().__init__()
        self.attention = attention
        self.scale = scale

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.attention(query, key, value * self.scale)


class ScaledUp(nn.Module):
    """The gated activation with its up half times `scale`, in place.

    The product is what overflows.
    """

    def __init__(self, activation: nn.Module, scale: float) -> None:
        super().__init__()
        self.activation = activation
        self.scale = scale

    def forward(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate_up[..., gate_up.shape[-1] // 2 :].mul_(self.scale)
        return self.activation(gate_up)
