"""Keys that a config.json leaves out mean what transformers makes of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny_models import write_tiny_llama
from zoo.checks.quantizers import BACKEND_ARCHITECTURES
from zoo.models.config_defaults import DEFAULTS, completed, is_tied
from zoo.models.encoders import FAMILIES
from zoo.models.heads import CLASSIFIERS, softcap_of
from zoo.models.shapes import read_config, shape_of_config

READ = (
    "tie_word_embeddings",
    "intermediate_size",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
# Models whose code lies beside their weights: transformers has no class of them.
ELSEWHERE = {"ExaoneForCausalLM", "InternLM2ForCausalLM", "MiniCPMForCausalLM", "MiniCPM3ForCausalLM"}


def families() -> dict[str, Any]:
    """The config classes of every model that is quantized, classifies or is trained here, by model_type."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    types = {name: kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if isinstance(name, str)}
    named = {*CLASSIFIERS, *(name for known in BACKEND_ARCHITECTURES.values() for name in known)} - ELSEWHERE
    # Gemma 3's text model is of the class that its whole model is of, too.
    kinds = {"gemma3_text" if name == "Gemma3ForCausalLM" else types[name] for name in named} | FAMILIES.keys()
    return {kind: transformers.CONFIG_MAPPING[kind] for kind in kinds}


def defaults_of(kind: Any) -> dict[str, Any]:
    """What a config class has for the keys that are read here, where it has anything at all."""
    found = {field.name: field.default for field in dataclasses.fields(kind) if field.name in READ}
    return {name: value for name, value in found.items() if value not in (None, dataclasses.MISSING)}


def test_the_table_is_what_transformers_has() -> None:
    expected = {kind: defaults_of(config) for kind, config in families().items()}
    assert len(expected) > 25 and all("tie_word_embeddings" in found for found in expected.values())
    assert expected == DEFAULTS


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3_text", "qwen3", "mistral"])
def test_a_shape_of_a_config_with_gaps_is_that_of_transformers_own(kind: str) -> None:
    """Oracle: transformers' config object, made from the same keys."""
    import transformers

    given = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 32, "vocab_size": 320}
    theirs = transformers.CONFIG_MAPPING[kind](**given)
    config = completed({**given, "model_type": kind})
    ours = shape_of_config(config)
    for name in ("intermediate_size", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.head_dim == (theirs.head_dim or 96 // 32)
    assert softcap_of(config) == getattr(theirs, "final_logit_softcapping", None)
    assert ours.attn_logit_softcapping == getattr(theirs, "attn_logit_softcapping", None)


def test_what_a_config_says_stands(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert read_config(folder) == config, "transformers writes every key"
    assert is_tied(config) and not is_tied({**config, "tie_word_embeddings": None})
    del config["tie_word_embeddings"]
    assert not is_tied(config) and not is_tied({}) and is_tied({"model_type": "gemma"})
    assert not is_tied({"model_type": ["gemma"]}), "a type that is no text is of no family"
    assert completed({"model_type": "gemma2", "final_logit_softcapping": None})["final_logit_softcapping"] is None
