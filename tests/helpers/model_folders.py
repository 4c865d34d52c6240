"""Model folders without weights, made as `save_pretrained` would: a tokenizer, a config, and safetensors headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
}


def model(folder: Path, *, chat: str | None = CHATML, words: tuple[str, ...] = ("tie",), **config: Any) -> Path:
    """A model folder without weights: a byte-level tokenizer that knows `words`, a config, and safetensors headers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in words:
        built = word[0]
        for letter in word[1:]:
            merges.append((built, letter))
            built += letter
    vocabulary = dict.fromkeys([*alphabet, *(a + b for a, b in merges)])
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    settings = {"bos_token": {"content": "<s>"}} | ({"chat_template": chat} if chat else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [300, 576], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder
