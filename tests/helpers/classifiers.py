"""Tiny classifiers as transformers saves them, and what they answer in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {"query_pre_attn_scalar": 64, "sliding_window": 32}
CAP = 4.0
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": False}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**GEMMA, "final_logit_softcapping": CAP}),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA),
}


def write_causal(folder: Path, family: str) -> Path:
    """A causal model of random weights, its embedding so large that a soft-cap bends its logits."""
    import torch
    import transformers

    config, model, more = FAMILIES[family]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**SIZES, **more))
    with torch.no_grad():
        for embedding in {made.get_input_embeddings(), made.get_output_embeddings()}:
            embedding.weight.normal_(std=0.3)
    made.to(torch.bfloat16).save_pretrained(folder)
    return folder


def write_classifier(folder: Path, family: str) -> Path:
    """A classifier of random weights, saved by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification

    causal = write_causal(folder.parent / f"{family}-causal", family)
    made = AutoModelForSequenceClassification.from_pretrained(causal, num_labels=3, dtype=torch.bfloat16)
    with torch.no_grad():
        made.score.weight.normal_(std=0.3)
    made.save_pretrained(folder)
    return folder


def answers(folder: Path, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Oracle: logits (rows, 3) by transformers' own forward pass in float32, a row at a time, after the family's cap."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        raw: np.ndarray = torch.cat([model.eval()(torch.tensor([list(row)])).logits for row in rows]).numpy()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return cap * np.tanh(raw / cap) if cap else raw
