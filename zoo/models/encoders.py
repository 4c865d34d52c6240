"""Encoders: the families that are known here, and how a checkpoint says so.

An encoder reads a battle in both directions at once and answers from one position or the mean of all, by a small head of its
own: transformers' `*ForSequenceClassification` with three outputs, classes by place in the prompt as everywhere. A pretrained
one has no such head yet: it begins at random, by the seed of the training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.contracts import Encoder
from zoo.reading import read_json_object

# By `model_type` of config.json: DeBERTa's own checkpoints name no architecture.
FAMILIES: dict[str, Encoder] = {"deberta-v2": "DebertaV2", "modernbert": "ModernBert", "bert": "Bert", "roberta": "Roberta"}
# Parts of the classifier beside the body, by transformers' names: trained whole beside adapters.
HEAD_MODULES: dict[Encoder, tuple[str, ...]] = {
    "DebertaV2": ("pooler", "classifier"),
    "ModernBert": ("head", "classifier"),
    "Bert": ("pooler", "classifier"),
    "Roberta": ("classifier",),
}


def classifier_name(family: Encoder) -> str:
    """transformers' class of a family's classifier, as an entry's base.architecture has it."""
    return f"{family}ForSequenceClassification"


def encoder_named(architecture: str) -> Encoder | None:
    """The family of a classifier's class; None where it is no encoder's."""
    return next((family for family in FAMILIES.values() if architecture == classifier_name(family)), None)


def encoder_of(config: dict[str, Any]) -> Encoder | None:
    """The family of a checkpoint by its config.json.

    Whatever its head is; None where it is no encoder.
    """
    return FAMILIES.get(str(config.get("model_type")))


def folder_encoder(folder: Path) -> Encoder | None:
    """The family of a model folder; None where it is no encoder, or has no config.json."""
    path = folder / "config.json"
    return encoder_of(read_json_object(path, mend="copy the model's config again")) if path.is_file() else None
