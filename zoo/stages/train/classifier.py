"""The classifier head: where it begins, and what tells of it beside an adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from zoo.errors import ZooError
from zoo.models.heads import SCORE, head_of, label_names
from zoo.models.shapes import read_config
from zoo.store import write_atomic

LabelIds = tuple[int, int, int]

HEAD = "head.json"  # beside an adapter that has a classifier: the tokens whose rows it began as
MODULE = "score"  # transformers' name of a classifier, in models, adapters and files
VOCABULARY_HEADS = ("lm_head.weight", "model.embed_tokens.weight")  # the second where the first is tied to it


def label_rows(base: Path, label_ids: Sequence[int]) -> torch.Tensor:
    """Rows (3, hidden) of the vocabulary's head, as stored: where a classifier begins.

    ZooError where the folder has no such head.
    """
    for name in VOCABULARY_HEADS:
        found = _rows_of(base, name, label_ids)
        if found is not None:
            return found
    raise ZooError(f"{base}: no {' or '.join(VOCABULARY_HEADS)} to start a classifier from; set head = 'labels'")


def saved_head(folder: Path, label_ids: Sequence[int]) -> torch.Tensor:
    """What of a folder answers, (3, hidden) as stored: its classifier or the label rows."""
    found = _rows_of(folder, SCORE, range(3))
    return label_rows(folder, label_ids) if found is None else found


def _rows_of(folder: Path, name: str, rows: Sequence[int]) -> torch.Tensor | None:
    """Some rows of a matrix in a folder's safetensors files, without the others in memory; None where it is in none."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                matrix = file.get_slice(name)
                return torch.cat([matrix[i : i + 1] for i in rows])
    return None


def load_classifier(base: Path, label_ids: Sequence[int], **options: Any) -> Any:
    """A causal model's folder as a classifier of transformers, its head the label rows.

    The head is in float32, whatever the body is in. `options`: of `from_pretrained`.
    """
    from transformers import AutoModelForSequenceClassification, logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # else it warns at length that there is no `score` yet
    try:
        model = AutoModelForSequenceClassification.from_pretrained(base, **label_names(), **options)
    finally:
        logging.set_verbosity(shown)
    head = getattr(model, MODULE)
    head.weight = torch.nn.Parameter(label_rows(base, label_ids).float().to(model.device))
    return model


def class_of(folder: Path) -> Any:
    """transformers' class that makes a model of a folder, by the head that it has."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if head_of(read_config(folder)) == "classifier" else AutoModelForCausalLM


def note_start(label_ids: Sequence[int], trained: Path) -> None:
    """Leave beside an adapter which rows its classifier began as."""
    write_atomic(trained / HEAD, json.dumps({"label_ids": list(label_ids)}))


def note_elsewhere(trained: Path, *, capped: bool = False) -> None:
    """Leave beside an adapter that its classifier was made elsewhere.

    `capped`: whether it learned with its family's final soft-cap there. What it began as cancels out where it is merged whole,
    so that any rows serve.
    """
    write_atomic(trained / HEAD, json.dumps({"label_ids": [0, 1, 2], "elsewhere": True, "softcap": capped}))


def learned_uncapped(trained: Path) -> bool:
    """Whether an adapter's classifier learned without its family's final soft-cap, as elsewhere."""
    path = trained / HEAD
    found = json.loads(path.read_text()) if path.exists() else {}
    return bool(found.get("elsewhere")) and not found.get("softcap")


def start_of(trained: Path) -> LabelIds | None:
    """The tokens whose rows an adapter's classifier began as; None where it has none."""
    path = trained / HEAD
    if not path.exists():
        return None
    first, second, third = json.loads(path.read_text())["label_ids"]
    return first, second, third
