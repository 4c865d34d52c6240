"""The model in training: its passes, its optimizer, and its held-out log loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from zoo.contracts import TrainSpec
from zoo.models.batches import all_steps, dealt, largest_batch, micro_batches, total_steps
from zoo.models.memory import optimizer_states
from zoo.models.prompts import Codec
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import label_probabilities, without_ties
from zoo.stages.device import compute_dtype, device
from zoo.stages.encoders import is_encoder
from zoo.stages.gemma_float16 import widen
from zoo.stages.train.activation_checkpoints import Later, fit_memory
from zoo.stages.train.adapters import causal_model, trained_parameters
from zoo.stages.train.data_parallel import ALONE, Ranks, device_sum
from zoo.stages.train.examples import Example
from zoo.stages.train.fused import AdaptedLinear, fuse, refresh
from zoo.stages.train.host_matrices import NO_MATRICES, movable
from zoo.stages.train.label_head import label_logits, pad, place_of_ids
from zoo.stages.train.objectives import OBJECTIVES


class Learner:
    """A model in training: its passes, its optimizer, and what of it is fused.

    `ties`: whether the battles can be ties; where not, it is judged on A and B alone. What it learns has three labels always.
    """

    def __init__(
        self, model: Any, codec: Codec, spec: TrainSpec, *, fused: bool = True, ranks: Ranks = ALONE, ties: bool = True
    ) -> None:
        self.model, self.codec, self.spec, self.ranks, self.ties = model, codec, spec, ranks, ties
        # cudnn plans its attention anew for each shape of a batch, tens of milliseconds of the host's, and hardly two of a
        # training's have the same: with flash attention it is 1.06 to 1.35 times as fast (benchmarks/train_speed.md). Set for
        # the whole process, which is a stage's own and does nothing but train.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.encoder = is_encoder(causal_model(model))
        self.adapted: list[AdaptedLinear] = fuse(model) if fused and not self.encoder else []
        self.optimizer = make_optimizer(model, spec)
        self.parameters = list(trained_parameters(model).values())
        # float16 holds no gradient below 6e-8: the loss is scaled up, and down again where that overflows (Micikevicius et al.
        # 2018, arXiv 1710.03740). A step whose gradients overflow is left out.
        self.scaler = torch.amp.GradScaler(device().type, enabled=compute_dtype() == torch.float16)
        self.skipped_steps = 0
        if self.scaler.is_enabled():
            widen(causal_model(model))

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Label logits (rows, 3) in float32."""
        model = causal_model(self.model)
        ids, mask = pad(rows, place_of_ids(model))
        with self._precision():
            return label_logits(model, ids, mask, self.codec.label_ids)

    def _precision(self) -> AbstractContextManager[Any]:
        """Autocast where layers do not choose their precision by themselves.

        Fused layers multiply in 16 bits by themselves; what is kept in float32 otherwise would be multiplied in it. On
        processors only encoders are float32 where there are 16 bits.
        """
        place, dtype = device().type, compute_dtype()
        wide = self.encoder and dtype != torch.float32 if place == "cpu" else not self.adapted
        return torch.autocast(place, dtype=dtype) if wide else nullcontext()

    def backward(self, rows: Sequence[list[int]], targets: Sequence[Sequence[float]], share: float) -> torch.Tensor:
        """Forward and backward pass of a micro-batch; the sum of its losses, on its device.

        `share`: a row's weight.
        """
        objective = OBJECTIVES[self.spec.objective]
        with self._precision():
            loss = objective(causal_model(self.model), rows, targets, self.codec.label_ids)
        self.scaler.scale(loss * share).backward()
        return loss.detach()

    def update(self, learning_rate: float) -> torch.Tensor:
        """One optimizer step on the gradients so far; their norm before clipping.

        Not finite where the step was left out, in float16 alone: the next loss is scaled by half as much.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        refresh(self.adapted)
        if self.scaler.is_enabled() and not torch.isfinite(norm):
            self.skipped_steps += 1
        return norm.detach()

    def restore_scaler(self, scale: float, growth_tracker: int, skipped_steps: int) -> None:
        """Go on with the loss scale of a run that was killed, as if it had not been."""
        self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": growth_tracker})
        self.skipped_steps = skipped_steps

    def fit_memory(self, train: Sequence[Example]) -> dict[str, float]:
        """Decide by trial passes what is computed again, where it is asked for.

        The passes are of the largest batches of the training to come.
        """
        if not self.spec.gradient_checkpointing:
            return {}

        def one_pass(rows: int, tokens: int) -> None:
            self.model.train()
            for parameter in self.parameters if accumulates else ():  # those of the micro-batches before it
                parameter.grad = torch.zeros_like(parameter)
            try:
                self.backward([[self.codec.label_ids[0]] * tokens] * rows, [[1.0, 0.0, 0.0]] * rows, 1 / rows)
            finally:
                self.optimizer.zero_grad(set_to_none=True)

        model, spec = causal_model(self.model), self.spec
        lengths = [len(e.ab) for e in train]
        steps = all_steps(lengths, spec, total_steps(len(train), spec))
        accumulates = any(len(dealt(step, lengths, self.ranks.count)) > self.ranks.count for step in steps)
        passes = [partial(one_pass, *shape) for shape in self.largest_shapes(train)]
        states, paged = optimizer_states(spec, sum(p.numel() for p in self.parameters))
        whole_head = spec.objective == "text"
        host = NO_MATRICES if self.encoder else movable(model, self.codec.label_ids, whole_head=whole_head)
        return fit_memory(model, self.adapted, passes, spec.memory_gib, Later(states, paged), host)

    def largest_shapes(self, train: Sequence[Example]) -> list[tuple[int, int]]:
        """(rows, tokens) of the largest micro-batch and of the longest row, the larger first.

        The largest has the most tokens. Short rows fill a whole `micro_batch_tokens`; a long one may leave much of it or be
        over it, and its attention may cost most.
        """
        longest = [max(len(e.ab), len(e.ba)) for e in train]
        batch = largest_batch([len(e.ab) for e in train], self.spec, self.ranks.count)
        shapes = {(len(batch), max(longest[i] for i in batch)), (1, max(longest))}
        return sorted(shapes, key=lambda shape: -shape[0] * shape[1])


def make_optimizer(model: Any, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW, with paged 8-bit states where that is asked for or pays.

    Dettmers et al. 2021, arXiv 2110.02861.
    """
    parameters = list(trained_parameters(model).values())
    on_gpu = torch.cuda.is_available()
    _, paged = optimizer_states(spec, sum(p.numel() for p in parameters))
    settings: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if paged and (on_gpu or spec.optimizer == "adamw8bit"):
        from bitsandbytes.optim import PagedAdamW8bit

        optimizer: torch.optim.Optimizer = PagedAdamW8bit(parameters, **settings)
        return optimizer
    return torch.optim.AdamW(parameters, fused=on_gpu, **settings)


@torch.no_grad()
def evaluate(learner: Learner, held: list[Example], *, alone: bool = False) -> float:
    """Log loss of the held-out rows in their own response order.

    Not finite where an answer is not. `alone`: by this process, without the others of a data-parallel training.
    """
    ranks = ALONE if alone else learner.ranks
    p = held_probabilities(learner.logits, held, 2 * learner.spec.micro_batch_tokens, learner.model, ranks=ranks)
    return float(log_loss_rows(p if learner.ties else without_ties(p), np.array([e.label for e in held])).mean())


def held_probabilities(
    logits: Callable[[Sequence[list[int]]], torch.Tensor],
    held: list[Example],
    max_tokens: int,
    model: Any,
    *,
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """(rows, 3) in the order of `held`, without dropout."""
    model.eval()
    p = np.zeros((len(held), 3))
    rows = sorted(range(len(held)), key=lambda i: len(held[i].ab))
    batches = list(micro_batches(rows, [len(e.ab) for e in held], max_tokens))
    for position in ranks.share([len(batch) * len(held[batch[-1]].ab) for batch in batches]):
        batch = batches[position]
        p[batch] = label_probabilities(logits([held[i].ab for i in batch]).cpu().numpy(), "ab")
    return p if ranks.count == 1 else np.asarray(device_sum(p, ranks))
