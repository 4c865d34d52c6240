"""The head: logits of the three labels at the last position, by tokens or a classifier.

An encoder has a head of its own.

No full-vocabulary logits are made: with 128k tokens they are most of a small model's memory and none of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoo.stages.encoders import encoder_logits, is_encoder
from zoo.stages.train.classifier import LabelIds

LABEL_ROWS = "_zoo_label_rows"  # attribute of a vocabulary's head that is on the host: what of it is on the device


def label_logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, label_ids: LabelIds | torch.Tensor) -> torch.Tensor:
    """Logits (batch, 3) of the labels after the last unmasked position, in float32.

    `model` is a transformers causal language model, or one for sequence classification, whose `score` takes the place of the
    label tokens' rows (adapters injected or not); `ids` and `mask` are (batch, tokens), padded
    on the right, where `place_of_ids` says: no token attends to what follows it, so the model needs no mask, and attention runs
    in its fastest kernel.
    The final soft-cap is applied where the model has one (Gemma 2: cap * tanh(x / cap)). An encoder reads in both directions,
    and needs its mask.
    """
    if is_encoder(model):
        return encoder_logits(model, ids, mask)
    hidden = hidden_states(model, ids)
    ends = (mask.sum(dim=1) - 1).to(hidden.device, non_blocking=True)
    last = hidden[torch.arange(len(ids), device=hidden.device), ends]
    with torch.autocast(hidden.device.type, enabled=False):  # 16-bit logits near 20 are 0.016 (float16) or 0.125 apart
        weight, bias = _label_rows(model, label_ids)
        logits = last.float() @ weight.float().T
        if bias is not None:
            logits = logits + bias.float()
    cap = final_softcap(model)
    return cap * torch.tanh(logits / cap) if cap else logits


def _label_rows(model: Any, label_ids: LabelIds | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights (3, hidden) and biases (3,) of the labels: a classifier's own, else the label tokens' of the vocabulary."""
    head = getattr(model, "score", None)
    if head is not None:
        return head.weight, None
    head = model.get_output_embeddings()
    kept: dict[LabelIds, tuple[torch.Tensor, torch.Tensor | None]] | None = getattr(head, LABEL_ROWS, None)
    return _rows_of(head, label_ids) if kept is None else kept[tuple(map(int, label_ids))]  # type: ignore[index]


def _rows_of(head: Any, label_ids: LabelIds | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    rows = torch.as_tensor(label_ids, device=head.weight.device)
    bias = getattr(head, "bias", None)
    return head.weight[rows], None if bias is None else bias[rows]


def keep_label_rows(head: Any, label_ids: LabelIds) -> None:
    """Have the labels' rows of a vocabulary's head where they are, wherever the head is moved."""
    with torch.no_grad():
        setattr(head, LABEL_ROWS, {tuple(label_ids): _rows_of(head, label_ids)})


def place_of_ids(model: Any) -> torch.device:
    """Where a model reads its token ids: where its embedding is.

    That may be the host's memory (zoo/stages/train/host_matrices.py).
    """
    place: torch.device = model.get_input_embeddings().weight.device
    return place


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
