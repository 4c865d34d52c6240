"""Activation checkpointing: what a training pass keeps or computes again, by memory.

Neither changes a number.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo.errors import OutOfMemory
from zoo.stages import progress
from zoo.stages.device import device, room_bytes
from zoo.stages.train.fused import AdaptedLinear
from zoo.stages.train.host_matrices import NO_MATRICES, HostMatrices

MIB, GIB = 2**20, 2**30
CHECKPOINTED = "memory/checkpointed_layers"
HEADROOM = 0.04  # of the memory: what torch's allocator, in segments that grow, keeps in pieces too small to use


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
    host: HostMatrices = NO_MATRICES,
) -> dict[str, float]:
    """Checkpoint as few layers as the GPU's memory allows.

    What `host` has is moved to the host's memory where fewer layers are computed again without it. Dequantized weights are kept
    where there is room for all of them. `passes` are forward and backward passes of the largest batches. Each is run with every
    layer checkpointed, with all but one, and as was decided, so that this rests on what was measured, not estimated.
    `limit_gib`: memory that training may take; None: what is free. On a CPU every layer is checkpointed, as was asked.
    OutOfMemory where even that does not fit.
    """
    layers = decoder_layers(model)
    checkpoint_layers(model, len(layers))
    if device().type != "cuda":
        return {CHECKPOINTED: float(len(layers))}
    room = _room(limit_gib)
    for_passes = room - (0 if later.paged else later.states)
    least, moved = _peak(passes), 0
    if least > for_passes and host.modules:
        moved, least = _move(host), _peak(passes)
    _refuse_too_large(least, for_passes)
    kept = max(_kept_bytes(one_pass, layers) for one_pass in passes)
    room -= later.states
    count = _checkpointed(len(layers), room - least, kept)
    if not moved and host.modules and _checkpointed(len(layers), room - least + host.bytes, kept) < count:
        moved = _move(host)
        least -= moved
        count = _checkpointed(len(layers), room - least, kept)
    count, peak = _settle(model, passes, count, room, kept, least)
    copies = sum(2 * m.a.shape[1] * m.b.shape[0] for m in adapted if hasattr(m.weight, "quant_state"))
    keeps = bool(copies) and count == 0 and copies < room - peak
    if keeps:
        for m in adapted:
            m.keep()
    held = f", {moved / GIB:.1f} GiB of embedding and head on the host" if moved else ""
    kept_weights = "kept in 16 bits" if keeps else "as they are"
    progress.note(f"{count} of {len(layers)} layers computed again, weights {kept_weights}{held}")
    return {
        CHECKPOINTED: float(count),
        "memory/kept_weights": float(keeps),
        "memory/on_host_gib": moved / GIB,
        **({"memory/kept_mib_a_layer": kept / MIB} if kept < float("inf") else {}),
    }


def _move(host: HostMatrices) -> int:
    """Move the matrices; bytes that this freed."""
    freed = host.bytes
    host.move()
    torch.cuda.empty_cache()
    return freed


def _checkpointed(layers: int, spare: float, kept: float) -> int:
    """How many of the layers must be checkpointed, if the others keep so many bytes each of what is to spare."""
    return max(0, layers - int(max(0, spare) // max(1, kept)))


def _settle(
    model: Any, passes: Sequence[Callable[[], None]], count: int, room: float, kept: float, least: float
) -> tuple[int, float]:
    """How many layers to checkpoint, tried: `count`, or more where its passes do not fit, or fewer where they leave room.

    The second value is the peak with them. `least`: with every layer.
    """
    layers = len(decoder_layers(model))
    best, peak = layers, least
    while count < layers:
        checkpoint_layers(model, count)
        found = _peak(passes)
        if found > room:
            if best < layers:  # fewer did not fit, after all
                break
            count = min(layers, count + max(1, math.ceil((found - room) / max(1, kept)) if math.isfinite(found) else 1))
            continue
        best, peak = count, found
        fewer = _checkpointed(count, room - peak, kept)
        if fewer == count:
            break
        count = fewer
    checkpoint_layers(model, best)
    return best, peak


def _room(limit_gib: float | None) -> float:
    free = room_bytes(device())
    return (1 - HEADROOM) * min(free, limit_gib * GIB if limit_gib else free)


def _peak(passes: Sequence[Callable[[], None]]) -> float:
    """torch's peak during the passes, in bytes, weights included; without end where they do not fit."""
    torch.cuda.reset_peak_memory_stats()
    if all(_fits(one_pass) for one_pass in passes):
        return float(torch.cuda.max_memory_allocated())
    gc.collect()  # what the pass that was cut short had made
    torch.cuda.empty_cache()
    return float("inf")


def _fits(one_pass: Callable[[], None]) -> bool:
    try:
        one_pass()
    except torch.cuda.OutOfMemoryError:
        return False
    return True


def _refuse_too_large(peak: float, room: float) -> None:
    """OutOfMemory where passes with every layer computed again take more than there is."""
    if peak > room:
        need = "more than is free" if peak == float("inf") else f"{peak / GIB:.1f} GiB"
        raise OutOfMemory(
            f"a pass of the largest batch takes {need} of {room / GIB:.1f} GiB with every layer computed again; "
            "lower train.micro_batch_tokens or prompt.max_tokens"
        )


def _kept_bytes(one_pass: Callable[[], None], layers: Sequence[Any]) -> float:
    """Bytes that a layer keeps for its backward pass beyond what a checkpointed one keeps.

    Measured by the second layer, kept, against the third, checkpointed: the first keeps less than any other, as nothing before
    it is trained. Without end where there is no room for one such layer.
    """
    whole, checkpointed = layers[1 % len(layers)], layers[2 % len(layers)]
    allocated: dict[Any, list[int]] = {whole: [], checkpointed: []}

    def look(layer: Any, *_: Any) -> None:
        allocated[layer].append(torch.cuda.memory_allocated())

    whole.gradient_checkpointing = False
    handles = [hook(look) for layer in allocated for hook in (layer.register_forward_pre_hook, layer.register_forward_hook)]
    try:
        fits = _fits(one_pass)
    finally:
        whole.gradient_checkpointing = True
        for handle in handles:
            handle.remove()
    if not fits:
        return float("inf")
    more = {layer: found[1] - found[0] for layer, found in allocated.items()}
    return float(more[whole] - (more[checkpointed] if checkpointed is not whole else 0))
