"""What a config.json means where it leaves a key out.

transformers fills that in by family, and so does every engine. A missing `tie_word_embeddings` is true for Gemma, whose own
configs leave it out, and false for Llama: of a Llama that lacks both the key and its head, an engine would make the head of
random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By `model_type`: the defaults of transformers' config classes (5.19) for what is read of a config here, where they have one;
# tests/zoo/models/test_config_defaults.py reads them there. `num_key_value_heads` and `head_dim` follow from
# other keys where they are not named.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": 3072, "max_position_embeddings": 512, "tie_word_embeddings": True},
    "bloom": {"tie_word_embeddings": True},
    "cohere": {"intermediate_size": 22528, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "cohere2": {"intermediate_size": 22528, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "deberta-v2": {"intermediate_size": 6144, "max_position_embeddings": 512, "tie_word_embeddings": True},
    "deepseek_v2": {"intermediate_size": 11008, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "deepseek_v3": {
        "intermediate_size": 18432,
        "num_key_value_heads": 128,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "exaone4": {
        "intermediate_size": 16384,
        "num_key_value_heads": 32,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "falcon": {"max_position_embeddings": 2048, "tie_word_embeddings": True},
    "gemma": {
        "intermediate_size": 24576,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "intermediate_size": 9216,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    "gemma3_text": {
        "intermediate_size": 9216,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "gpt_bigcode": {"tie_word_embeddings": True},
    "gpt_neox": {"intermediate_size": 24576, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "gptj": {"tie_word_embeddings": False},
    "granite": {"intermediate_size": 11008, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "llama": {"intermediate_size": 11008, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "mistral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "mixtral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "modernbert": {"intermediate_size": 1152, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "olmo": {"intermediate_size": 11008, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "olmo3": {"intermediate_size": 11008, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "opt": {"max_position_embeddings": 2048, "tie_word_embeddings": True},
    "phi3": {"intermediate_size": 8192, "max_position_embeddings": 4096, "tie_word_embeddings": False},
    "qwen2": {
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
    "qwen3": {
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": {
        "intermediate_size": 6144,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
    "roberta": {"intermediate_size": 3072, "max_position_embeddings": 512, "tie_word_embeddings": True},
    "seed_oss": {
        "intermediate_size": 27648,
        "num_key_value_heads": 8,
        "max_position_embeddings": 524288,
        "tie_word_embeddings": False,
        "head_dim": 128,
    },
    "stablelm": {
        "intermediate_size": 6912,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "starcoder2": {
        "intermediate_size": 12288,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with what its family means by the keys that it leaves out.

    As it is where the family is not known here.
    """
    family = config.get("model_type")
    return {**DEFAULTS.get(family if isinstance(family, str) else "", {}), **config}


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the vocabulary's head is the embedding.

    Where neither config nor family says so, it is not.
    """
    return bool(completed(config).get("tie_word_embeddings", False))
