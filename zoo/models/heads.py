"""Heads: what of a model answers with three logits, and how its checkpoint says so.

`labels`: a causal model; three rows of its vocabulary's head, those of the label tokens, are multiplied with the last token's
final state. `classifier`: a linear layer `score` (3, hidden) without bias reads the same state, and the vocabulary's head is
gone: the form of transformers' `*ForSequenceClassification`, which vLLM serves with `runner="pooling"`. It begins as the three
label rows, so that both heads are one function before training. Encoders have a classifier of their own
(`zoo.models.encoders`). Classes are by place in the prompt, as label tokens are: the
answer that is shown first, the one that is shown second, tie.

Neither transformers nor vLLM applies a family's final soft-cap (Gemma 2) to a classifier. Here it is applied wherever the
logits are used, so that a head goes on from where label tokens are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.contracts import LABELS, Head
from zoo.models.config_defaults import completed
from zoo.models.encoders import FAMILIES, classifier_name

SOFTCAP = "final_logit_softcapping"  # of a config
SCORE = "score.weight"  # of a classifier, in a checkpoint
VOCABULARY_HEAD = "lm_head."  # the names of what a classifier replaces begin so
# Causal models with a form for sequence classification that transformers 5 loads, and vLLM 0.32 from the causal class.
CLASSIFIERS = {
    **{f"{name}ForCausalLM": f"{name}ForSequenceClassification" for name in ("Gemma", "Gemma2", "Llama", "Mistral", "Qwen2")},
    "Qwen3ForCausalLM": "Qwen3ForSequenceClassification",
    "Gemma3ForCausalLM": "Gemma3TextForSequenceClassification",
}
_CAUSAL = {classifier: causal for causal, classifier in CLASSIFIERS.items()}
_WITH_CLASSIFIER = _CAUSAL.keys() | {classifier_name(family) for family in FAMILIES.values()}


def causal_name(architecture: str) -> str:
    """The causal architecture of which a classifier has the body; a causal one itself."""
    return _CAUSAL.get(architecture, architecture)


def head_of(config: dict[str, Any]) -> Head:
    """The head of a checkpoint, by its config.json."""
    names = config.get("architectures")
    return "classifier" if isinstance(names, list) and names and names[0] in _WITH_CLASSIFIER else "labels"


def label_names() -> dict[str, dict[Any, Any]]:
    """`id2label` and `label2id` of a classifier's config."""
    return {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}


def classifier_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a causal model's classifier. KeyError where its architecture has none."""
    return {**config, "architectures": [CLASSIFIERS[config["architectures"][0]]], **label_names()}


def without_softcap(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a classifier that transformers trained: it knows no final soft-cap."""
    return {**config, SOFTCAP: None} if SOFTCAP in completed(config) else config


def softcap_of(config: dict[str, Any]) -> float | None:
    """The cap of a model's logits, cap * tanh(x / cap), where its family has one."""
    cap = completed(config).get(SOFTCAP)
    return cap if isinstance(cap, int | float) and 0 < cap < math.inf else None


def softcapped(logits: np.ndarray, cap: float | None) -> np.ndarray:
    """Logits of any shape after the cap; without one as they are."""
    return logits if cap is None else cap * np.tanh(logits / cap)
