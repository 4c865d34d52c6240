"""Attention with soft-capped logits (Gemma 2): a block of scores at a time, none kept.

transformers' plain products make (rows, heads, tokens, tokens) scores in six steps and keep some twelve bytes of each for the
backward pass: at 1,024 tokens 0.2 GiB a row and layer of Gemma 2 9B. Here the probabilities of a block of rows and heads are
made, used and dropped, and made again in the backward pass, as flash attention does in its tiles (Dao et al. 2022, arXiv
2205.14135), by the same steps in the same precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from zoo.models.memory import SCORE_BLOCK
from zoo.stages.device import attention_of

SOFTCAPPED = "zoo_softcapped"  # the name of `softcapped_attention` among transformers' own


def training_attention(config: Any) -> dict[str, str]:
    """Options of `from_pretrained` for the attention that training a model needs here.

    None where transformers' own choice does.
    """
    found = attention_of(config)
    return {"attn_implementation": _registered()} if found.get("attn_implementation") == "eager" else found


def _registered() -> str:
    """Make `softcapped_attention` known to transformers; its name there."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(SOFTCAPPED, softcapped_attention)
    AttentionMaskInterface.register(SOFTCAPPED, eager_mask)
    return SOFTCAPPED


def softcapped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    *,
    scaling: float,
    softcap: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it, of (batch, heads, tokens, head size).

    softmax(softcap * tanh(scaling / softcap * q k^T) + mask) v, (batch, tokens, heads, head size). `attention_mask`
    (batch or 1, 1, tokens, tokens) is added.
    """
    if dropout:
        raise NotImplementedError("dropout of attention probabilities with soft-capped logits")
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        query, key, value = (t.to(torch.get_autocast_dtype(kind)) for t in (query, key, value))
    with torch.autocast(kind, enabled=False):
        out: torch.Tensor = _Softcapped.apply(query, key, value, attention_mask, scaling, softcap)
    return out, None


class _Softcapped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scaling: float, cap: float
    ) -> torch.Tensor:
        batch, heads, tokens, size = q.shape
        out = q.new_empty(batch, tokens, heads, size)
        for block in _blocks(q, k):
            p, _ = block.probabilities(q, k, mask, scaling, cap)
            block.put(out.transpose(1, 2), p.to(v.dtype) @ block.of_keys(v))
        ctx.save_for_backward(q, k, v, mask, out)
        ctx.rest = scaling, cap
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        q, k, v, mask, out = ctx.saved_tensors
        scaling, cap = ctx.rest
        g, out = g.transpose(1, 2), out.transpose(1, 2)
        grads = tuple(torch.empty_like(t) for t in (q, k, v))
        for block in _blocks(q, k):
            _block_gradients(block, (q, k, v, mask, out, g), grads, scaling, cap)
        return *grads, None, None, None


def _block_gradients(
    block: _Block, tensors: tuple[torch.Tensor, ...], grads: tuple[torch.Tensor, ...], scaling: float, cap: float
) -> None:
    """Put a block's gradients of queries, keys and values into `grads`."""
    q, k, v, mask, out, g = tensors
    p, tanh = block.probabilities(q, k, mask, scaling, cap)
    own, of_out = block.of_queries(g), block.of_queries(out)
    block.put_keys(grads[2], p.to(v.dtype).transpose(1, 2) @ own)
    # Of the softmax's input: p * (dp - sum(p dp)), and that sum is of the output and its gradient.
    shift = (own.float() * of_out.float()).sum(-1, keepdim=True)
    d = p.mul_((own @ block.of_keys(v).transpose(1, 2)).sub(shift))
    d = torch.ops.aten.tanh_backward(d.to(q.dtype), tanh)  # without the cap, which the scale has divided by
    block.put(grads[0], _product(d, block.of_keys(k), scaling))
    block.put_keys(grads[1], _product(d.transpose(1, 2), block.of_queries(q), scaling))


def _product(a: torch.Tensor, b: torch.Tensor, factor: float) -> torch.Tensor:
    """factor * a b, rounded once."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=factor)


@dataclass(frozen=True)
class _Block:
    """Some rows of a batch, and some heads of keys with the `groups` heads of queries of each.

    Its matrices have one axis for rows and heads of keys; queries of one head of keys lie one after the other.
    """

    rows: slice
    keys: slice
    groups: int

    @property
    def queries(self) -> slice:
        return slice(self.keys.start * self.groups, self.keys.stop * self.groups)

    def of_keys(self, t: torch.Tensor) -> torch.Tensor:
        return t[self.rows, self.keys].flatten(0, 1)

    def of_queries(self, t: torch.Tensor) -> torch.Tensor:
        """(rows * heads of keys, groups * tokens, size) of (batch, heads, tokens, size)."""
        part = t[self.rows, self.queries]
        return part.reshape(-1, self.groups * part.shape[2], part.shape[3])

    def put(self, target: torch.Tensor, part: torch.Tensor) -> None:
        """The inverse of `of_queries`, into the whole."""
        place = target[self.rows, self.queries]
        place.copy_(part.view(place.shape))

    def put_keys(self, target: torch.Tensor, part: torch.Tensor) -> None:
        place = target[self.rows, self.keys]
        place.copy_(part.view(place.shape))

    def probabilities(
        self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor, scaling: float, cap: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities in float32, and the tanh that they come of.

        Both (rows * heads of keys, groups * tokens, tokens).
        """
        tanh = _product(self.of_queries(q), self.of_keys(k).transpose(1, 2), scaling / cap).tanh_()
        added = (mask if len(mask) == 1 else mask[self.rows])[:, :, None]
        shape = (-1, self.keys.stop - self.keys.start, self.groups, *q.shape[2:3], k.shape[2])
        logits = torch.add(added, tanh.view(shape), alpha=cap)
        return torch.softmax(logits, -1, dtype=torch.float32).view(tanh.shape), tanh


def _blocks(q: torch.Tensor, k: torch.Tensor) -> Iterator[_Block]:
    """The batch in blocks of at most `SCORE_BLOCK` scores, or one head of keys of one row."""
    batch, heads, tokens, _ = q.shape
    shared = k.shape[1]
    groups = heads // shared
    at_once = max(1, SCORE_BLOCK // (groups * tokens * k.shape[2]))  # heads of keys, of all rows
    rows, keys = max(1, at_once // shared), min(shared, at_once)
    for row in range(0, batch, rows):
        for first in range(0, shared, keys):
            yield _Block(slice(row, min(batch, row + rows)), slice(first, min(shared, first + keys)), groups)
