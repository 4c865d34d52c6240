"""Adapters of an encoder merged into its base, in float32 and in memory.

The largest has half a billion weights. Unlike a language model's files, a base's names here are often not those of the model
that is trained: it was saved with the head of its pretraining, or by an older version of transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.encoders import load_encoder
from zoo.stages.weights.low_rank import PREFIX, open_updates, updated_weight


def merge_encoder(base: Path, target: Path, trained: Sequence[Path]) -> tuple[int, float]:
    """Write the base with the mean of several adapters' updates to `target`.

    What of the head was trained whole is the mean of what each has become. Returns how many weights were changed, and the
    largest change of any. ZooError where an adapter changes a weight that the base does not have.
    """
    model = load_encoder(base, dtype=torch.float32)
    state: dict[str, torch.Tensor] = dict(model.state_dict())
    adapters = [open_updates(path / "adapter") for path in trained]
    wholes = [_whole_tensors(path / "adapter") for path in trained]
    updated = set().union(*adapters)
    if missing := sorted((updated | set().union(*wholes)) - state.keys()):
        raise ZooError(
            f"{trained[0]}: the base has no weight {missing[0]} ({len(missing)} such); was it trained on another base?"
        )
    if any(whole.keys() != wholes[0].keys() for whole in wholes):
        raise ZooError(f"{trained[0].name}: adapters of one head alone are averaged; these have different ones")
    largest = 0.0
    with torch.no_grad(), progress.bar(len(updated), "merge", "weight") as bar:
        for name in sorted(updated):
            after = updated_weight(name, state[name], adapters).to(state[name].device)
            largest = max(largest, float((after - state[name]).abs().max()))
            state[name].copy_(after)
            bar.update()
        for name in wholes[0]:
            state[name].copy_(torch.stack([whole[name].float() for whole in wholes]).mean(dim=0))
    model.save_pretrained(target)
    return len(updated) * len(adapters), largest


def _whole_tensors(adapter: Path) -> dict[str, Any]:
    """What an adapter has of the model's own weights by name: its head, trained whole."""
    found = load_file(adapter / "adapter_model.safetensors")
    return {name.removeprefix(PREFIX): tensor for name, tensor in found.items() if ".lora_" not in name}
