"""The head: logits of the three labels at the last position, by tokens or a classifier.

An encoder has a head of its own.

No full-vocabulary logits are made: with 128k tokens they are most of a small model's memory and none of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoo.stages.encoders import encoder_logits, is_encoder


def label_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, label_ids: tuple[int, int, int] | torch.Tensor
) -> torch.Tensor:
    """Logits (batch, 3) of the labels after the last unmasked position, in float32.

    `model` is a transformers causal language model, or one for sequence classification, whose `score` takes the place of the
    label tokens' rows (adapters injected or not); `ids` and `mask` are (batch, tokens), padded
    on the right: no token attends to what follows it, so the model needs no mask, and attention runs in its fastest kernel.
    The final soft-cap is applied where the model has one (Gemma 2: cap * tanh(x / cap)). An encoder reads in both directions,
    and needs its mask.
    """
    if is_encoder(model):
        return encoder_logits(model, ids, mask)
    last = hidden_states(model, ids)[torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1]
    with torch.autocast(ids.device.type, enabled=False):  # 16-bit logits near 20 are 0.016 (float16) or 0.125 apart
        weight, bias = _label_rows(model, label_ids)
        logits = last.float() @ weight.float().T
        if bias is not None:
            logits = logits + bias.float()
    cap = final_softcap(model)
    return cap * torch.tanh(logits / cap) if cap else logits


def _label_rows(model: Any, label_ids: tuple[int, int, int] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights (3, hidden) and biases (3,) of the labels: a classifier's own, else the label tokens' of the vocabulary."""
    head = getattr(model, "score", None)
    if head is not None:
        return head.weight, None
    head = model.get_output_embeddings()
    rows = torch.as_tensor(label_ids, device=head.weight.device)
    bias = getattr(head, "bias", None)
    return head.weight[rows], None if bias is None else bias[rows]


def hidden_states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What the head reads, (batch, tokens, hidden): the last layer's output, normed."""
    hidden: torch.Tensor = getattr(model, model.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def final_softcap(model: Any) -> float | None:
    """The cap of a causal model's logits, where it has one."""
    cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return cap


def pad(rows: Sequence[list[int]], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (batch, longest) padded on the right with 0, and their mask.

    What is masked is never read.
    """
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)
