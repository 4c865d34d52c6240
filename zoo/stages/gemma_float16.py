"""Gemma 2 and 3 in float16 in transformers: norms and residual stream in float32.

Their residual streams exceed float16's 65504. Each decoder layer has a norm before and after attention and feed-forward, which
makes two exact changes possible:

- embeddings, norms and with them the residual stream are kept in float32; only what a linear layer reads is rounded to 16 bits;
- what attention and the feed-forward part add up is made times s = 2^-RESCALE_BITS, and the norm that reads it has s^2 eps:
  RMSNorm(s x; s^2 eps) = RMSNorm(x; eps), as `zoo/stages/score/vllm/gemma_float16.py` does in vLLM.

Weights and adapters stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from zoo.checks import RESCALE_BITS
from zoo.stages.norms import FusedNorm, computed_from

SCALE = 2.0**-RESCALE_BITS
NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


def widen(model: Any) -> int:
    """Change a causal language model of transformers in place, adapters injected or not.

    How many layers were changed: 0 where its layers have not the four norms of Gemma 2 and 3: then nothing is changed.
    """
    layers = [module for module in model.modules() if all(hasattr(module, name) for name in NORMS)]
    if not layers:
        return 0
    decoder = getattr(model, model.base_model_prefix)
    model.get_input_embeddings().register_forward_hook(lambda _, __, out: out.float())
    # Cosine and sine come in the residual stream's dtype, and would make queries and keys as wide.
    decoder.rotary_emb.register_forward_hook(lambda _, __, out: tuple(part.to(torch.float16) for part in out))
    for layer in layers:
        for name in NORMS:
            norm = getattr(layer, name)
            after = name.startswith("post_")
            norm.forward = _wide(norm.forward, torch.float32 if after else torch.float16)
            norm.eps *= SCALE**2 if after else 1.0
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: (_scaled(inputs[0]), *inputs[1:]))
        layer.mlp.up_proj.register_forward_hook(lambda _, __, out: out * SCALE)
    return len(layers)


def _scaled(x: torch.Tensor) -> torch.Tensor:
    return computed_from(x * SCALE, x, lambda source: source * SCALE)


def _wide(forward: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """A norm computed in float32 of whatever it reads, its output in `dtype`."""
    if isinstance(forward, FusedNorm):  # it is in float32 already, without a copy that autograd would keep
        forward.output = dtype
        return forward

    def norm(x: torch.Tensor) -> torch.Tensor:
        return forward(x.float()).to(dtype)

    return norm
