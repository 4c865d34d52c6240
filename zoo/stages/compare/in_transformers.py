"""Label probabilities of a model, or of a base with its adapter, in transformers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.contracts import Order, TrainSpec
from zoo.models.batches import micro_batches
from zoo.models.memory import EVALUATION_TOKENS
from zoo.models.prompts import Codec
from zoo.models.shapes import count_parameters
from zoo.scores.tables import label_probabilities
from zoo.stages import progress
from zoo.stages.device import attention_options, compute_dtype, device, free_bytes
from zoo.stages.gemma_float16 import widen
from zoo.stages.train.adapters import causal_model, load_base
from zoo.stages.train.classifier import class_of, learned_uncapped, start_of
from zoo.stages.train.label_head import label_logits, pad

WIDE_SHARE = 0.5  # of the free memory that weights may take in float32; above it they are read in 16 bits


def model_probabilities(load: Callable[[], Any], rows: list[list[int]], codec: Codec, order: Order, title: str) -> np.ndarray:
    """(rows, 3) in the battles' own A and B; the model that `load` gives is let go afterwards.

    `title`: of the progress bar.
    """
    model = load().eval()
    logits = np.zeros((len(rows), 3))
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    batches = list(micro_batches(by_length, [len(row) for row in rows], EVALUATION_TOKENS))
    with torch.no_grad(), progress.bar(len(batches), title, "step") as bar:
        for batch in batches:
            ids, mask = pad([rows[i] for i in batch], device())
            logits[batch] = label_logits(causal_model(model), ids, mask, codec.label_ids).cpu().numpy()
            bar.update()
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return label_probabilities(logits, order)


def dtype_for(folder: Path) -> torch.dtype:
    """float32 where weights take a small part of the free memory, else 16 bits.

    In float32 rounding is no part of a step. Counted by parameters and not by bytes: a model has as many of them in every dtype
    that it is stored in.
    """
    if device().type != "cuda":
        return torch.float32
    wide = 4 * count_parameters(folder)
    return torch.float32 if wide < WIDE_SHARE * free_bytes(device()) else compute_dtype()


def plain_model(folder: Path, dtype: torch.dtype) -> Any:
    """A model folder as it is, with the head that it has, in `dtype`."""
    model = class_of(folder).from_pretrained(folder, dtype=dtype, device_map={"": device()}, **attention_options(folder))
    if dtype == torch.float16:
        widen(model)
    return model


def adapted_model(base: Path, adapter: Path, spec: TrainSpec) -> Any:
    """The base as training held it, NF4 or 16 bits, with the adapter beside it."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_base(base, spec, start_of(adapter.parent)), adapter)
    if learned_uncapped(adapter.parent):
        causal_model(model).config.final_logit_softcapping = None
    if compute_dtype() == torch.float16:
        widen(causal_model(model))
    return model
