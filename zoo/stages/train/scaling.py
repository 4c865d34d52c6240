"""A trained update scaled: weights between those of the base and the trained ones.

WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903) interpolates the weights of a base and of its fine-tuned form, W + s (W' - W),
which holds up better on data of another kind. For a low-rank update that is exact: W + s B A is the adapter with B scaled.
Which s is best is chosen on prompts of the training side that were set apart: on held-out rows the choice would flatter the log
loss that the member is judged by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zoo.contracts import CHOSEN, Scale
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.train.adapters import trained_parameters
from zoo.stages.train.examples import Example
from zoo.stages.train.fused import refresh
from zoo.stages.train.learner import Learner, evaluate
from zoo.store import write_atomic

SCALES = "scales.json"  # beside an adapter: what each factor gave on the prompts that were set apart, and the best
SCALED_LOSS = "scale/log_loss"
HEAD_UPDATE = ".modules_to_save."  # in the name of a classifier's weight that is trained beside the one it began as


def scale_update(model: Any, factor: float) -> None:
    """Multiply a peft model's updates by a factor, in place.

    They are low-rank ones, and a classifier's way from where it began.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(factor)
            elif HEAD_UPDATE in name:
                start = model.get_submodule(name.split(HEAD_UPDATE)[0]).original_module.weight
                parameter.copy_(start + factor * (parameter - start))


@contextmanager
def scaled(learner: Learner, factor: float) -> Iterator[None]:
    """The learner with its update scaled; afterwards it has the very weights that it had."""
    kept = {
        name: p.detach().clone()
        for name, p in trained_parameters(learner.model).items()
        if ".lora_B." in name or HEAD_UPDATE in name
    }
    try:
        scale_update(learner.model, factor)
        refresh(learner.adapted)
        yield
    finally:
        for name, parameter in trained_parameters(learner.model).items():
            if name in kept:
                parameter.data.copy_(kept[name])
        refresh(learner.adapted)


def choose_scale(
    learner: Learner, apart: list[Example], held: list[Example], out_dir: Path
) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """Evaluate every factor of `train.scales`, and 1, on rows that were set apart.

    The best is written to `out_dir`. Returns metrics, among them the held-out log loss with the best factor, and the curve of
    log loss over percent of the update. Of equal ones the largest is taken. This process evaluates
    alone: others may have ended.
    """
    losses = {}
    for factor in sorted({*learner.spec.scales, 1.0}):
        with scaled(learner, factor):
            losses[factor] = evaluate(learner, apart, alone=True)
        progress.note(f"{factor:g} of the update: log loss {losses[factor]:.4f} on {len(apart)} rows set apart")
    best = min(losses, key=lambda factor: (losses[factor], -factor))
    with scaled(learner, best):
        held_out = evaluate(learner, held, alone=True)
    record = {"chosen": best, "rows": len(apart), "log_loss": {f"{factor:g}": loss for factor, loss in losses.items()}}
    write_atomic(out_dir / SCALES, json.dumps(record, indent=1))
    metrics = {"scale/chosen": best, "scale/rows": float(len(apart)), "scale/held_out_log_loss": held_out}
    return metrics, [(round(100 * factor), loss) for factor, loss in losses.items()]


def scale_of(scale: Scale, trained: Path) -> float:
    """The factor that is meant for the adapter in a train artifact.

    ZooError where training is to have chosen it and has chosen none.
    """
    if scale != CHOSEN:
        return float(scale)
    path = trained / SCALES
    if not path.exists():
        raise ZooError(f"merge.scale = 'chosen': {trained.name} has chosen none; set train.scales and train again")
    return float(json.loads(path.read_text())["chosen"])
