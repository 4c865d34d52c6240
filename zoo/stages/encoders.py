"""Encoders in transformers, with a classifier of three outputs in float32.

Training, merging and scoring share this. Attention is transformers' own choice for the family: torch's kernels where it has
them, plain products for DeBERTa, whose distances no kernel knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.models.encoders import FAMILIES, HEAD_MODULES
from zoo.models.heads import label_names

HEAD = "classifier"  # its last part, in every family


def load_encoder(folder: Path, *, dtype: torch.dtype, place: torch.device | str = "cpu", seed: int = 0) -> Any:
    """An encoder's folder as transformers' classifier of three outputs, on a device.

    What of its head the folder does not have begins at random by the seed, whatever else was drawn before.
    """
    from transformers import AutoModelForSequenceClassification, logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # else it warns at length that there is no classifier yet
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, **label_names())
    finally:
        logging.set_verbosity(shown)
    return model.to(place)


def is_encoder(model: Any) -> bool:
    """Whether a transformers model is of one of the families."""
    return getattr(model.config, "model_type", None) in FAMILIES


def encoder_logits(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits (batch, 3) in float32; `ids` and `mask` are (batch, tokens).

    Where nothing is, the model's own padding token is put: RoBERTa counts positions by what is not it.
    """
    ids = ids.masked_fill(mask == 0, model.config.pad_token_id or 0)
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits.float()


def widen_head(model: Any) -> None:
    """Keep the classifier in float32, also under autocast and in a body of 16 bits.

    Of a model with adapters, after they are injected: what peft copied before would call the original.
    """
    head = getattr(model, HEAD)
    head.float()
    head.forward = _in_float32(head.forward)


def _in_float32(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def wide(hidden: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float(), *args, **options)

    return wide


def head_modules(model: Any) -> list[str]:
    """The parts of an encoder beside its layers that are trained whole.

    As peft finds them, by the end of a name.
    """
    return list(HEAD_MODULES[FAMILIES[model.config.model_type]])


def linear_modules(model: Any) -> list[str]:
    """Names of the linear layers that adapters go to: an encoder's, without its head."""
    body = model.base_model_prefix
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(f"{body}.") and ".pooler." not in f".{name}"
    ]
