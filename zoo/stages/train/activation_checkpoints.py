"""Activation checkpointing: what a training pass keeps or computes again, by memory.

Neither changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.errors import OutOfMemory
from zoo.stages import progress
from zoo.stages.device import device, room_bytes
from zoo.stages.train.fused import AdaptedLinear

GIB = 2**30
HEADROOM = 0.06  # of the memory: what torch's allocator keeps in pieces too small to use


def decoder_layers(model: Any) -> list[Any]:
    """The layers that transformers can checkpoint, in order."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_layers(model: Any, count: int) -> None:
    """Checkpoint `count` of the decoder's layers, spread evenly.

    Only their inputs are kept, and the rest of them is computed again.
    """
    if count:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layers = decoder_layers(model)
    for i, layer in enumerate(layers):
        layer.gradient_checkpointing = (i + 1) * count // len(layers) > i * count // len(layers)


@dataclass(frozen=True)
class Later:
    """Bytes that a training takes once it runs, and its first pass does not.

    The optimizer's states. Paged ones move to the host where the card is full: they do not make a pass too large, but pages
    that move cost time.
    """

    states: int = 0
    paged: bool = False


def fit_memory(
    model: Any,
    adapted: Sequence[AdaptedLinear],
    passes: Sequence[Callable[[], None]],
    limit_gib: float | None,
    later: Later = Later(),
) -> dict[str, float]:
    """Checkpoint as few layers as the GPU's memory allows.

    Dequantized weights are kept where there is room for all of them. `passes` are forward and backward passes of the largest
    batches. Each is run with every layer checkpointed and with all but one, so that what is decided is measured, not estimated.
    `limit_gib`: memory that training may take; None: what is free. On a CPU every layer is checkpointed, as was asked.
    OutOfMemory where even that does not fit.
    """
    layers = decoder_layers(model)
    checkpoint_layers(model, len(layers))
    if device().type != "cuda":
        return {"memory/checkpointed_layers": float(len(layers))}
    room = _room(limit_gib)
    least = max(_peak(one_pass, room - (0 if later.paged else later.states)) for one_pass in passes)
    kept = max(_kept_bytes(one_pass, layers) for one_pass in passes)
    room -= later.states
    count = max(0, len(layers) - int(max(0, room - least) // max(1, kept)))
    checkpoint_layers(model, count)
    spare = room - least - (kept * (len(layers) - count) if count < len(layers) else 0)
    copies = sum(2 * m.a.shape[1] * m.b.shape[0] for m in adapted if hasattr(m.weight, "quant_state"))
    keeps = bool(copies) and count == 0 and copies < spare
    if keeps:
        for m in adapted:
            m.keep()
    progress.note(f"{count} of {len(layers)} layers computed again, weights {'kept in 16 bits' if keeps else 'as they are'}")
    return {"memory/checkpointed_layers": float(count), "memory/kept_weights": float(keeps)}


def _room(limit_gib: float | None) -> float:
    free = room_bytes(device())
    return (1 - HEADROOM) * min(free, limit_gib * GIB if limit_gib else free)


def _peak(one_pass: Callable[[], None], room: float) -> float:
    """torch's peak during a pass, in bytes; weights included."""
    torch.cuda.reset_peak_memory_stats()
    try:
        one_pass()
    except torch.cuda.OutOfMemoryError:
        peak = float("inf")
    else:
        peak = float(torch.cuda.max_memory_allocated())
    if peak > room:
        need = "more than is free" if peak == float("inf") else f"{peak / GIB:.1f} GiB"
        raise OutOfMemory(
            f"a pass of the largest batch takes {need} of {room / GIB:.1f} GiB with every layer computed again; "
            "lower train.micro_batch_tokens or prompt.max_tokens"
        )
    return peak


def _kept_bytes(one_pass: Callable[[], None], layers: Sequence[Any]) -> float:
    """Bytes that a layer keeps for its backward pass beyond what a checkpointed one keeps.

    Measured by the first layer, kept, against the second, checkpointed. Without end where there is no room for one such layer.
    """
    allocated: list[int] = []

    def look(*_: Any) -> None:
        allocated.append(torch.cuda.memory_allocated())

    layers[0].gradient_checkpointing = False
    handles = [hook(look) for layer in layers[:2] for hook in (layer.register_forward_pre_hook, layer.register_forward_hook)]
    try:
        one_pass()
    except torch.cuda.OutOfMemoryError:
        return float("inf")
    finally:
        layers[0].gradient_checkpointing = True
        for handle in handles:
            handle.remove()
    whole, *checkpointed = (after - before for before, after in zip(allocated[0:4:2], allocated[1:4:2], strict=True))
    return float(whole - sum(checkpointed))
