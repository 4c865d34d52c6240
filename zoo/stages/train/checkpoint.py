"""Training checkpoints: weights, optimizer state and progress, as safetensors and JSON."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from zoo.pipeline.starts import CHECKPOINT, STATE
from zoo.stages import progress
from zoo.store import write_atomic

NEW, OLD = f"{CHECKPOINT}.new", f"{CHECKPOINT}.old"  # beside it while the one takes the other's place
BEST = "best.safetensors"  # in the checkpoint's folder: it goes with it


@dataclass
class Progress:
    """Where a run is: all that a resumed run needs beside weights and optimizer state."""

    step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf  # held-out log loss; once training starts, at most that of the untrained model
    stale: int = 0  # evaluations since it was reached
    loss_scale: float | None = None  # None: the loss is not scaled, as in bfloat16
    out_of_hours: bool = False  # whether train.max_hours ended it before its last step
    growth_tracker: int = 0  # steps since the scale was last changed
    wall_seconds: float = 0.0  # of all runs so far, loading and evaluations included
    skipped_steps: int = 0  # left out, since their scaled gradients overflowed float16
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def log(self, name: str, value: float) -> None:
        self.curves.setdefault(name, []).append((self.step, value))
        progress.point(name, self.step, value)


def save_checkpoint(
    model: Any, optimizer: torch.optim.Optimizer, state: Progress, out_dir: Path, *, best: bool = False
) -> None:
    """Save trainable weights, optimizer tensors and progress as one folder.

    It takes the last one's place. With it go the best weights so far: these, where `best`, else those of the folder that it
    replaces. At every moment a whole one is there under one of three names: a run may be killed between any two steps.
    """
    new, current, old = (out_dir / name for name in (NEW, CHECKPOINT, OLD))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    save_file(trained_weights(model), new / "weights.safetensors")
    values = flatten(optimizer.state_dict()["state"])
    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    scalars = {key: value for key, value in values.items() if key not in tensors}
    save_file({key: own_copy(value) for key, value in tensors.items()}, new / "optimizer.safetensors")
    kept = new / "weights.safetensors" if best else current / BEST
    if kept.exists():
        (new / BEST).hardlink_to(kept)
    write_atomic(new / STATE, json.dumps({"progress": vars(state), "scalars": scalars}))
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)


def remove_checkpoints(out_dir: Path) -> None:
    """At the end of a run: nothing of its checkpoints is part of the artifact."""
    for name in (NEW, CHECKPOINT, OLD):
        shutil.rmtree(out_dir / name, ignore_errors=True)


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}


def load_best(model: Any, out_dir: Path) -> None:
    """Put the best weights of the last checkpoint back into the model."""
    copy_into(model, load_file(out_dir / CHECKPOINT / BEST))


def copy_into(model: Any, weights: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(weights[name])


def flatten(values: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by slashes.

    The quantized state of bitsandbytes lies one level below each parameter.
    """
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
    """The tensor in memory of its own on the CPU.

    The parameters share one quantization map in bitsandbytes.
    """
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def whole_checkpoint(out_dir: Path) -> Path | None:
    """The folder of the last whole checkpoint.

    A replacement that was cut short is finished first.
    """
    folder = out_dir / CHECKPOINT
    found = next((out_dir / name for name in (CHECKPOINT, NEW, OLD) if (out_dir / name / STATE).exists()), None)
    if found is None or found == folder:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    return found.rename(folder)


def resume(model: Any, optimizer: torch.optim.Optimizer, out_dir: Path) -> Progress | None:
    """Load the last whole checkpoint into model and optimizer; None where there is none."""
    folder = whole_checkpoint(out_dir)
    if folder is None:
        return None
    copy_into(model, load_file(folder / "weights.safetensors"))
    saved = json.loads((folder / STATE).read_text())
    state = nest({**load_file(folder / "optimizer.safetensors"), **saved["scalars"]})
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    found = Progress(**saved["progress"])
    found.curves = {name: [(int(s), float(v)) for s, v in points] for name, points in found.curves.items()}
    progress.note(f"going on from step {found.step}")
    return found
