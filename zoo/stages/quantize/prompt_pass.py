"""Whole prompts through a model a layer at a time, up to the logits of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoo.models.batches import micro_batches
from zoo.stages.device import device
from zoo.stages.quantize.layerwise import LayerwiseModel
from zoo.stages.train.classifier import saved_head
from zoo.stages.train.label_head import final_softcap, pad

BATCH_TOKENS = 512

Stream = list[torch.Tensor]  # hidden states (prompts, tokens, hidden) of each batch, padded on the right


class PromptPass:
    """Prompts in batches, and the arguments that each layer is called with for each of them.

    `masks` (prompts, tokens) of each batch: which positions are a prompt's. No token attends to what follows it, so what pads
    a prompt changes nothing before it.
    """

    def __init__(self, whole: LayerwiseModel, prompts: list[list[int]]) -> None:
        self._whole = whole
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        batches = list(micro_batches(by_length, [len(row) for row in prompts], BATCH_TOKENS))
        self._rows = batches[len(batches) // 2 :] + batches[: len(batches) // 2]  # `few` are those of middle length
        self.masks: list[torch.Tensor] = []
        self._inputs: Stream = []
        self._arguments: list[list[dict[str, Any]]] = []  # of each batch, a layer each
        for rows in self._rows:
            ids, mask = pad([prompts[i] for i in rows], "cpu")
            hidden, arguments = _called(whole, ids)
            self._inputs.append(hidden.to(device()))
            self._arguments.append([_moved(one) for one in arguments])
            self.masks.append(mask.bool().to(device()))

    def start(self) -> Stream:
        """A stream before the first layer."""
        return list(self._inputs)

    def run(self, layer: torch.nn.Module, number: int, stream: Stream) -> None:
        """Replace a stream by what a layer makes of it."""
        stream[:] = self.output(layer, number, stream)

    def output(self, layer: torch.nn.Module, number: int, stream: Stream) -> Stream:
        """What a layer makes of the first batches, as many as `stream` has."""
        found = []
        for x, arguments in zip(stream, self._arguments, strict=False):
            made = layer(x, **arguments[number])
            found.append(made[0] if isinstance(made, tuple) else made)
        return found

    def few(self, stream: Stream, tokens: int) -> Stream:
        """The first batches of a stream that hold so many tokens, one at least."""
        held, count = 0, 0
        for mask in self.masks:
            if held >= tokens:
                break
            held, count = held + int(mask.sum()), count + 1
        return stream[:count]

    def squared_error(self, stream: Stream, expected: Stream) -> float:
        """Sum of squared differences of two streams, without what pads them."""
        parts = zip(stream, expected, self.masks, strict=False)
        return float(sum((a - b)[mask].float().pow(2).sum().item() for a, b, mask in parts))

    def label_logits(self, stream: Stream, label_ids: Sequence[int]) -> torch.Tensor:
        """Logits (prompts, 3) of the labels after each prompt, from the last layer's output."""
        model = self._whole.model
        norm = getattr(model, model.base_model_prefix).norm.to(device())
        head = saved_head(self._whole.source, label_ids).float().to(device())
        logits = torch.empty(sum(map(len, self._rows)), 3)
        for batch, x, mask in zip(self._rows, stream, self.masks, strict=True):
            last = norm(x[torch.arange(len(x), device=x.device), mask.sum(1) - 1])
            logits[batch] = (last.float() @ head.T).cpu()
        cap = final_softcap(model)
        return cap * torch.tanh(logits / cap) if cap else logits


def _called(whole: LayerwiseModel, ids: torch.Tensor) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The first layer's input, and the arguments that the model calls each layer with.

    The model is run with layers that do nothing: what it gives them depends on the tokens' number and places alone.
    """
    hidden: list[torch.Tensor] = []
    arguments: list[dict[str, Any]] = []

    def note(x: torch.Tensor, **given: Any) -> torch.Tensor:
        hidden.append(x)
        arguments.append({name: value for name, value in given.items() if name not in ("past_key_values", "use_cache")})
        return x

    for layer in whole.layers:
        layer.forward = note
    try:
        getattr(whole.model, whole.model.base_model_prefix)(input_ids=ids, use_cache=False)
    finally:
        for layer in whole.layers:
            del layer.forward
    return hidden[0], arguments


def _moved(value: Any) -> Any:
    """Tensors on the device, also in tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        return value.to(device())
    if isinstance(value, tuple):
        return tuple(_moved(one) for one in value)
    return {name: _moved(one) for name, one in value.items()} if isinstance(value, dict) else value
