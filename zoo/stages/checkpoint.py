"""Checkpoints of a training run: trainable weights, optimizer state and progress, safetensors and JSON only."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from zoo.stages import progress

CHECKPOINT = "checkpoint"
BEST = "best.safetensors"  # in the checkpoint's folder: it goes with it


@dataclass
class Progress:
    """Where a run is: all that a resumed run needs beside weights and optimizer state."""

    step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf  # held-out log loss
    stale: int = 0  # evaluations since it was reached
    loss_scale: float | None = None
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def log(self, name: str, value: float) -> None:
        self.curves.setdefault(name, []).append((self.step, value))


def save_checkpoint(model: Any, optimizer: torch.optim.Optimizer, state: Progress, out_dir: Path) -> None:
    """Trainable weights, optimizer tensors and progress, as one folder that replaces the last by a rename."""
    new, old = out_dir / f"{CHECKPOINT}.new", out_dir / CHECKPOINT
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    save_file(trained_weights(model), new / "weights.safetensors")
    values = flatten(optimizer.state_dict()["state"])
    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    scalars = {key: value for key, value in values.items() if key not in tensors}
    save_file({key: own_copy(value) for key, value in tensors.items()}, new / "optimizer.safetensors")
    (new / "state.json").write_text(json.dumps({"progress": vars(state), "scalars": scalars}))
    if (old / BEST).exists():
        (new / BEST).hardlink_to(old / BEST)
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}


def save_best(model: Any, out_dir: Path) -> None:
    """Keep the trained weights of this moment as the best ones so far."""
    folder = out_dir / CHECKPOINT
    folder.mkdir(exist_ok=True)
    save_file(trained_weights(model), folder / f"{BEST}.new")
    (folder / f"{BEST}.new").rename(folder / BEST)


def load_best(model: Any, out_dir: Path) -> None:
    """Put the weights that `save_best` kept back into the model; as they are where none was better than before training."""
    path = out_dir / CHECKPOINT / BEST
    if path.exists():
        copy_into(model, load_file(path))


def copy_into(model: Any, weights: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(weights[name])


def flatten(values: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by slashes: bitsandbytes keeps its quantized state one level below each parameter."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def nest(flat: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The inverse of `flatten` for an optimizer's state: parameter index -> its state."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, *path, last = key.split("/")
        place = state.setdefault(int(index), {})
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return state


def own_copy(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory of its own on the CPU: bitsandbytes shares one quantization map among all parameters."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def resume(model: Any, optimizer: torch.optim.Optimizer, out_dir: Path) -> Progress | None:
    """Load the last whole checkpoint into model and optimizer; None where there is none."""
    folder = out_dir / CHECKPOINT
    if not folder.exists() and (out_dir / f"{CHECKPOINT}.new" / "state.json").exists():
        (out_dir / f"{CHECKPOINT}.new").rename(folder)  # killed between removing the old one and the rename
    if not (folder / "state.json").exists():
        return None
    copy_into(model, load_file(folder / "weights.safetensors"))
    saved = json.loads((folder / "state.json").read_text())
    state = nest({**load_file(folder / "optimizer.safetensors"), **saved["scalars"]})
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    found = Progress(**saved["progress"])
    found.curves = {name: [(int(s), float(v)) for s, v in points] for name, points in found.curves.items()}
    progress.note(f"going on from step {found.step}")
    return found
