"""A LoRA adapter into its base weights, shard by shard from safetensors to safetensors.

W' = W + scale * B @ A with scale = alpha / rank (alpha / sqrt(rank) for rsLoRA), computed in float32 and stored in the
shard's own dtype (Hu et al. 2021, arXiv 2106.09685, section 4.1). Only one shard is in memory at a time, so a model of any
size merges on a small machine.

An adapter trained on NF4 weights has learned to make up for their rounding, so W is what it was trained on: NF4 there and
back, not the original (BASE_FORMAT has the names). Merged into the original, a small model loses much of what it learned.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from zoo.contracts import Measurements, MergeRequest, StageResult
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.labels import device, gpu_peak_bytes
from zoo.stages.train import BASE_FORMAT

PREFIX = "base_model.model."


def run(request: MergeRequest, out_dir: Path) -> StageResult:
    """Write the merged model folder `out_dir/model`."""
    base, adapter, target = request.base.path / "model", request.adapter.path / "adapter", out_dir / "model"
    target.mkdir(exist_ok=True)
    for path in base.iterdir():
        if path.is_file() and not path.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copy2(path, target / path.name)
    if not adapter.exists():  # full fine-tuning leaves a model, not an adapter
        shutil.copytree(request.adapter.path / "model", target, dirs_exist_ok=True)
        return StageResult(metrics={"size/weights_gib": weights_gib(target)})
    for index in base.glob("*.safetensors.index.json"):
        shutil.copy2(index, target / index.name)
    deltas = load_deltas(adapter)
    rounded = nf4_weights(request.adapter.path) if request.spec.into == "trained" else set()
    used: set[str] = set()
    largest_change = 0.0
    shards = sorted(base.glob("*.safetensors"))
    with progress.bar(len(shards), "merge", "shard") as bar:
        for shard in shards:
            merged, change = merge_shard(shard, deltas, rounded, used)
            largest_change = max(largest_change, change)
            save_file(merged, target / shard.name, metadata={"format": "pt"})
            del merged
            bar.update()
    if missing := sorted(deltas.keys() - used):
        raise ZooError(f"{adapter}: the base has no weight {missing[0]} ({len(missing)} such); was it trained on another base?")
    return StageResult(
        metrics={"merge/largest_weight_change": largest_change, "size/weights_gib": weights_gib(target)},
        measurements=Measurements(rows=len(used), peak_bytes=gpu_peak_bytes()),
    )


def weights_gib(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 1024**3


def load_deltas(adapter: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Weight name in the base -> (A, B, scale) of its low-rank update."""
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text())
    if config.get("use_dora"):
        raise ZooError(f"{adapter}: DoRA adapters are not merged shard by shard; train with plain LoRA")
    tensors = load_file(adapter / "adapter_model.safetensors")
    deltas = {}
    for name, a in tensors.items():
        if ".lora_A." not in name:
            continue
        module = name.removeprefix(PREFIX).split(".lora_A.")[0]
        rank = config.get("rank_pattern", {}).get(module, config["r"])
        alpha = config.get("alpha_pattern", {}).get(module, config["lora_alpha"])
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        deltas[f"{module}.weight"] = (a, tensors[name.replace(".lora_A.", ".lora_B.")], scale)
    if not deltas:
        raise ZooError(f"{adapter}: holds no LoRA weights")
    return deltas


def nf4_weights(trained: Path) -> set[str]:
    """Names of the base's weights that were NF4 in training; none where it was not QLoRA."""
    path = trained / BASE_FORMAT
    return set(json.loads(path.read_text())["nf4"]) if path.exists() else set()


def nf4_there_and_back(weight: torch.Tensor) -> torch.Tensor:
    """The float32 values that NF4 with double quantization keeps of a weight, in bitsandbytes' blocks of 64."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    quantized, state = quantize_4bit(weight.float().contiguous(), quant_type="nf4", compress_statistics=True)
    restored: torch.Tensor = dequantize_4bit(quantized, state)
    return restored


def merge_shard(
    shard: Path, deltas: dict[str, tuple[torch.Tensor, torch.Tensor, float]], rounded: set[str], used: set[str]
) -> tuple[dict[str, torch.Tensor], float]:
    """A shard's tensors with their updates added, and the largest absolute update; names of updated weights go to `used`.

    Weights in `rounded` are replaced by what NF4 keeps of them first.
    """
    merged: dict[str, torch.Tensor] = {}
    largest = 0.0
    with safe_open(shard, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            weight = file.get_tensor(name)
            merged[name] = weight
            if name not in deltas and name not in rounded:
                continue
            value = weight.to(device())
            value = nf4_there_and_back(value) if name in rounded else value.float()
            if name in deltas:
                a, b, scale = deltas[name]
                delta = scale * (b.to(device()).float() @ a.to(device()).float())
                if delta.shape != weight.shape:
                    raise ZooError(f"{shard}: {name} is {tuple(weight.shape)}, its adapter {tuple(delta.shape)}")
                largest = max(largest, float(delta.abs().max()))
                value += delta
                used.add(name)
            merged[name] = value.to(weight.dtype).cpu()
    return merged, largest
