"""Training objectives: cross-entropy of the label, or of the whole text with it.

The head over a whole vocabulary is applied to a chunk of positions at a time, and the chunk's gradient is taken while its
logits are there: with 128k tokens the logits of 4,096 positions are 2 GiB in float32, those of a chunk 0.5. So do Liger Kernel
(Hsu et al. 2024, arXiv 2410.10989) and, in blocks of the vocabulary too, Cut Cross-Entropy (Wijmans et al. 2024, arXiv
2411.09009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoo.models.memory import LOGIT_POSITIONS
from zoo.stages.train.classifier import LabelIds
from zoo.stages.train.label_head import final_softcap, hidden_states, label_logits, pad, place_of_ids

Rows = Sequence[list[int]]
Targets = Sequence[Sequence[float]]


def label_loss(model: Any, rows: Rows, targets: Targets, label_ids: LabelIds) -> torch.Tensor:
    """Sum over rows of the cross-entropy over the three labels.

    By the label tokens after each row, or a classifier's outputs.
    `targets` (rows, 3) are the shares to be given.
    """
    ids, mask = pad(rows, place_of_ids(model))
    logits = label_logits(model, ids, mask, label_ids)
    wanted = torch.tensor(targets, device=logits.device, dtype=logits.dtype)
    return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")  # of shares: -sum(target * log p)


def text_loss(model: Any, rows: Rows, targets: Targets, label_ids: LabelIds, chunk: int = LOGIT_POSITIONS) -> torch.Tensor:
    """Sum over rows of a row's mean cross-entropy over its text and its label.

    The mean is over each of its tokens after the first, and the label after the last. A row of n tokens has n predicted
    positions of 1/n each, times the weight that its target sums to: a long row counts as much as a short one. All are over the
    whole vocabulary; at the label the target is spread over the three label tokens. The model is used as `label_logits` uses
    it; `chunk`: positions whose logits are made at once.
    """
    ids, mask = pad(rows, "cpu")
    tokens, shares, weights = text_targets(ids, mask, torch.tensor(targets, dtype=torch.float32), label_ids)
    hidden = hidden_states(model, ids.to(place_of_ids(model)))
    head = model.get_output_embeddings()
    kept = mask.flatten().nonzero().squeeze(1)
    asked = [t.to(hidden.device) for t in (kept, tokens[kept], shares[kept], weights[kept])]
    options = (final_softcap(model), product_dtype(head.weight), chunk)
    loss: torch.Tensor = _HeadLoss.apply(hidden.flatten(0, 1), head.weight, getattr(head, "bias", None), *asked, *options)
    return loss


def text_targets(
    ids: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor, label_ids: LabelIds
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What each position of padded rows should predict.

    Tokens (positions, 3), their shares, and weights (positions,). Shares of a position sum to 1. An ordinary one has all of it
    on its first token; what padding has is not meant to be read.
    """
    lengths, total = mask.sum(dim=1), targets.sum(dim=1)
    tokens, shares = torch.zeros(*ids.shape, 3, dtype=torch.long), torch.zeros(*ids.shape, 3)
    tokens[:, :-1, 0], shares[..., 0] = ids[:, 1:], 1.0
    each = torch.arange(len(ids))
    tokens[each, lengths - 1] = torch.tensor(label_ids)
    shares[each, lengths - 1] = targets / total[:, None]
    weights = (total / lengths)[:, None].expand(ids.shape)
    return tokens.flatten(0, 1), shares.flatten(0, 1), weights.flatten()


def product_dtype(weight: torch.Tensor) -> torch.dtype:
    """What the head is multiplied in: its own dtype, or autocast's where that is on."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _HeadLoss(torch.autograd.Function):
    """Weighted cross-entropy of a head over a whole vocabulary, a chunk of rows at a time.

    sum_i weights_i * -sum_k shares_ik log softmax(cap(x_i W^T + bias))[tokens_ik] over the rows `kept` of hidden states x.
    Softmax, losses and sums are in float32. A position's gradient is kept without its weight and without autograd's factor,
    which come last: float16 holds the differences of two probabilities, but not 1/n of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        kept: torch.Tensor,
        tokens: torch.Tensor,
        shares: torch.Tensor,
        weights: torch.Tensor,
        cap: float | None,
        dtype: torch.dtype,
        chunk: int,
    ) -> torch.Tensor:
        loss = torch.zeros((), device=hidden.device)
        _, trained, trained_bias = ctx.needs_input_grad[:3]
        grad_x = torch.zeros_like(hidden)
        grad_w = torch.zeros_like(weight, dtype=torch.float32) if trained else None
        grad_b = torch.zeros_like(bias, dtype=torch.float32) if trained_bias else None
        matrix = weight.to(dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for at, token, share, w in zip(*(t.split(chunk) for t in (kept, tokens, shares, weights)), strict=True):
                x = hidden[at].to(dtype)
                losses, d = _position_losses(x, matrix, bias, token, share, cap)
                loss += losses @ w
                if grad_b is not None:
                    grad_b += w @ d
                d = d.to(dtype)
                grad_x[at] = (d @ matrix).to(grad_x.dtype)
                if grad_w is not None:
                    grad_w += _product(d.T, (x * w[:, None]).to(dtype))
                del d  # or it would stand beside the next chunk's logits
        ctx.save_for_backward(grad_x, grad_w, grad_b, kept, weights)
        return loss

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        grad_x, grad_w, grad_b, kept, weights = ctx.saved_tensors
        factors = torch.zeros(len(grad_x), device=g.device).index_copy_(0, kept, weights * g)
        grads = [None if t is None else g * t for t in (grad_w, grad_b)]
        return (grad_x * factors[:, None]).to(grad_x.dtype), *grads, *[None] * 7


def _position_losses(
    x: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    tokens: torch.Tensor,
    shares: torch.Tensor,
    cap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (positions,) of hidden states x, and their gradients by the logits.

    The gradients (positions, vocabulary) are by the logits before the cap.
    """
    logits = _product(x, matrix.T)
    if bias is not None:
        logits += bias.float()
    if cap:
        logits.div_(cap).tanh_().mul_(cap)
    logs = torch.log_softmax(logits, dim=1)
    losses = -(shares * logs.gather(1, tokens)).sum(dim=1)
    d = logs.exp_().scatter_add_(1, tokens, -shares)
    if cap:
        d.mul_(logits.div_(cap).square_().neg_().add_(1.0))  # 1 - tanh^2
    return losses, d


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The matrix product of a and b in float32.

    A GPU sums 16-bit factors in 32 bits and need not round the sum. A CPU's kernels round it.
    """
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


OBJECTIVES: dict[str, Callable[[Any, Rows, Targets, LabelIds], torch.Tensor]] = {"labels": label_loss, "text": text_loss}
