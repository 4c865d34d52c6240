"""A tiny real model and its tokenizer, built in a second, never downloaded, and the prompt that they read."""

from __future__ import annotations

import json
from pathlib import Path

CHAT = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else 'Answer: ' }}{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}Answer: {% endif %}"
)
TEMPLATE = "<|user|>\nPrompt: {prompt}\nA: {response_a}\nB: {response_b}\nWho wins?<|end|>\n"
# A whole entry of the tiny Llama: what tests of the chain train, quantize and score.
TINY_ENTRY = {
    "name": "tiny",
    "base": {"hub_id": "test/tiny", "architecture": "LlamaForCausalLM", "parameters": 300_000, "licence": "none"},
    "prompt": {"template": TEMPLATE, "max_tokens": 160},
    "train": {"rank": 4, "alpha": 8, "learning_rate": 5e-3, "eval_rows": 30, "max_rows": 64},
    "quantize": {"group_size": 32, "calibration_rows": 4, "calibration_tokens": 64, "apply_clip": False},
    "score": {
        "variants": [{"order": "ab", "max_tokens": 160}, {"order": "ba", "max_tokens": 160}],
        "chunk_rows": 8,
        "max_seqs": 4,
        "max_batched_tokens": 512,
    },
}


def write_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer in which A, B and tie are single tokens; its vocabulary size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["A B tie who wins prompt the answer is capital of what and because it", "What is the opposite of hot? cold"] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<pad>", "<|user|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken("tie", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(tokenizer.get_vocab_size())


def write_tiny_llama(folder: Path, *, seed: int = 0, **config: object) -> Path:
    """A two-layer Llama of random weights as an ordinary model folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = -(-write_tokenizer(folder) // 64) * 64
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **config})).to(torch.bfloat16)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def write_tiny_gemma3(folder: Path, *, seed: int = 0) -> Path:
    """A two-layer Gemma 3, one layer of sliding and one of full attention, norms before and after, as a model folder."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    write_tiny_llama(folder)
    vocabulary = -(-write_tokenizer(folder) // 64) * 64
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        query_pre_attn_scalar=64,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=512,
    )
    torch.manual_seed(seed)
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def write_chat_template(folder: Path, template: str | None = CHAT) -> Path:
    """Give a model folder a chat template, or take it away; the folder."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings | ({"chat_template": template} if template else {})))
    return folder
