"""Low-rank updates of saved adapters: what LoRA, rsLoRA and DoRA make of a weight.

W' = W + scale * B @ A with scale = alpha / rank (alpha / sqrt(rank) for rsLoRA), in float32 (Hu et al. 2021, arXiv 2106.09685,
section 4.1). DoRA then scales each output row to its learned length (Liu et al. 2024, arXiv 2402.09353, equation 5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from zoo.errors import ZooError
from zoo.stages.device import device

PREFIX = "base_model.model."
MAGNITUDE = ".lora_magnitude_vector"


@dataclass(frozen=True)
class Update:
    """One weight's update in one adapter. Its tensors are read from `file` when they are needed."""

    file: Any  # an open safetensors file
    a: str
    b: str
    magnitude: str | None
    scale: float

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The updated weight, float32 on the weight's device."""
        a, b = (self.file.get_tensor(name).to(weight.device).float() for name in (self.a, self.b))
        delta = b @ a
        if delta.shape != weight.shape:
            raise ZooError(f"{self.a}: weight is {tuple(weight.shape)}, its adapter {tuple(delta.shape)}; another base?")
        updated = torch.add(weight, delta, alpha=self.scale)
        if self.magnitude:
            length = self.file.get_tensor(self.magnitude).to(weight.device).float().flatten()
            updated *= (length / updated.norm(dim=1)).unsqueeze(1)
        return updated


def open_updates(adapter: Path, factor: float = 1.0) -> dict[str, Update]:
    """Weight name in the base -> its update, times `factor`.

    The adapter's file stays open; no tensor is read yet. ZooError where DoRA's update would have to be scaled: it is no sum.
    """
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text())
    if config.get("use_dora") and factor != 1:
        raise ZooError(f"{adapter}: merge.scale = {factor:g} is of a low-rank update, and DoRA's is none; merge it whole")
    file = safe_open(adapter / "adapter_model.safetensors", "pt")
    names = set(file.keys())
    updates = {}
    for name in names:
        if ".lora_A." not in name:
            continue
        stem = name.split(".lora_A.")[0]
        module = stem.removeprefix(PREFIX)
        rank = config.get("rank_pattern", {}).get(module, config["r"])
        alpha = config.get("alpha_pattern", {}).get(module, config["lora_alpha"])
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        magnitude = next((n for n in (f"{stem}{MAGNITUDE}", f"{stem}{MAGNITUDE}.weight") if n in names), None)
        if config.get("use_dora") and magnitude is None:
            raise ZooError(f"{adapter}: {module} has no magnitude vector though DoRA was used; train again")
        updates[f"{module}.weight"] = Update(file, name, name.replace(".lora_A.", ".lora_B."), magnitude, factor * scale)
    if not updates:
        raise ZooError(f"{adapter}: holds no LoRA weights")
    return updates


def updated_weight(name: str, weight: torch.Tensor, adapters: Sequence[Mapping[str, Update]]) -> torch.Tensor:
    """The mean over adapters of the weight as each of them updates it, float32.

    The mean of B @ A is not the product of mean B and mean A, so each product is made.
    """
    weight = weight.to(device()).float()
    total = torch.zeros_like(weight)
    for updates in adapters:
        total += updates[name].apply(weight) if name in updates else weight
    return total / len(adapters)
