"""An encoder's classifier that another trainer left, as a merge here would have written it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from zoo.errors import ZooError, printable
from zoo.models.heads import label_names
from zoo.stages import progress
from zoo.stages.encoders import HEAD
from zoo.stages.weights.foreign_tensors import tensors_by_file, unwrapped
from zoo.store import scratch_folder, write_atomic

# What a folder may have beside a classifier: the head of the pretraining, and numbers of positions that older versions kept.
BESIDE = ("lm_head.", "lm_predictions.", "mask_predictions.", "decoder.", "cls.")
POSITIONS = ("position_ids", "token_type_ids")


def write_encoder(folder: Path, target: Path, config: Mapping[str, Any], order: Sequence[int]) -> None:
    """Write the folder's model to `target` in float32.

    `order` are the places of a, b and tie among its outputs. ZooError where a weight is missing, is of another shape or is no
    part of the model: it would be random, or left out.
    """
    tensors = _tensors(folder)
    with scratch_folder(target.parent / "as-given") as scratch:
        save_file(tensors, scratch / "model.safetensors", metadata={"format": "pt"})
        write_atomic(scratch / "config.json", json.dumps({**config, **label_names()}))
        model = _loaded(scratch, folder)
    layer = getattr(getattr(model, HEAD), "out_proj", getattr(model, HEAD))  # RoBERTa's is a small network
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter[list(order)].clone())
    model.save_pretrained(target)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The folder's tensors without wrappers' names. ZooError for one that holds what is no number."""
    found: dict[str, torch.Tensor] = {}
    for path, tensors in tensors_by_file(folder):
        for given in tensors:
            try:
                name = unwrapped(given)
            except ZooError as error:
                raise ZooError(f"{path}: {error}") from None
            if name is not None:
                found[name] = tensors[given].contiguous().clone()
    broken = next((name for name, tensor in found.items() if tensor.is_floating_point() and not tensor.isfinite().all()), None)
    if broken:
        raise ZooError(
            f"{folder}: {printable(broken)[:80]} holds values that are no numbers; its training failed, take an earlier "
            "checkpoint"
        )
    return found


def _loaded(scratch: Path, folder: Path) -> Any:
    """transformers' classifier with every weight of its own. ZooError, naming `folder`, where one is not."""
    from transformers import AutoModelForSequenceClassification, logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model, told = AutoModelForSequenceClassification.from_pretrained(
            scratch, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ZooError(
            f"{folder}: transformers cannot load it ({printable(reason)}); save it again with save_pretrained"
        ) from error
    finally:
        logging.set_verbosity(shown)
    if wrong := sorted(str(name) for name, *_ in told["mismatched_keys"]):
        raise ZooError(
            f"{folder}: {printable(wrong[0])[:80]} has not the shape that config.json and three classes (a, b, tie) ask for; "
            "save it again with save_pretrained"
        )
    if missing := sorted(told["missing_keys"]):
        raise ZooError(f"{folder}: no {printable(missing[0])[:80]}, which would be random; save it again with its head")
    other = sorted(name for name in told["unexpected_keys"] if not (name.startswith(BESIDE) or name.endswith(POSITIONS)))
    if other:
        raise ZooError(
            f"{folder}: {printable(other[0])[:80]} is no weight of transformers' {type(model).__name__}, and would be left "
            "out; a model with a head of its own is not served"
        )
    progress.note(f"an encoder of {sum(parameter.numel() for parameter in model.parameters()):,} weights")
    return model
