"""Tiny real encoders of every family with tokenizers of their kinds, built in a second, and whole entries of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CLS_SEP = "[CLS]{prompt}[SEP]{response_a}[SEP]{response_b}[SEP]"
TEMPLATES = {
    "DebertaV2": CLS_SEP,
    "ModernBert": CLS_SEP,
    "Bert": CLS_SEP,
    "Roberta": "<s>{prompt}</s></s>{response_a}</s></s>{response_b}</s>",
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CORPUS = ["A B tie who wins prompt the answer is capital of what and because it", "What is the opposite of hot? cold"] * 20
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 160,
    "initializer_range": 0.1,  # at the usual 0.02 a model of this size answers much the same to every row
}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pooler_hidden_size": 64,
    "pooler_dropout": 0.0,
    "pooler_hidden_act": "gelu",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "DebertaV2": {**SIZES, **DEBERTA, "pad_token_id": 0},
    "ModernBert": {
        **SIZES,
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "local_attention": 16,
        "global_attn_every_n_layers": 3,
    },
    "Bert": {**SIZES, "pad_token_id": 0},
    "Roberta": {
        **SIZES,
        "max_position_embeddings": 162,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
}


def write_encoder_tokenizer(folder: Path, family: str) -> int:
    """A tokenizer.json of the family's kind: unigrams, word pieces or byte-level pairs; its vocabulary size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if family == "DebertaV2":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
        letters = [chr(code) for code in range(33, 127)]
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]", initial_alphabet=letters
        )
    elif family == "Bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=[chr(code) for code in range(33, 127)]
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        special = ROBERTA_SPECIAL if family == "Roberta" else SPECIAL
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(tokenizer.get_vocab_size())


def write_encoder(folder: Path, family: str, *, head: str = "ForMaskedLM", labels: int = 2, seed: int = 0) -> Path:
    """A three-layer encoder of random weights as a model folder: as it is pretrained, or with another head."""
    import torch
    import transformers

    vocabulary = -(-write_encoder_tokenizer(folder, family) // 64) * 64
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(vocab_size=vocabulary, num_labels=labels, **CONFIGS[family])
    getattr(transformers, f"{family}{head}")(config).save_pretrained(folder)
    return folder


def encoder_entry(family: str, **changed: Any) -> dict[str, Any]:
    """A whole entry of a tiny encoder, whose sections `changed` takes the place of."""
    entry: dict[str, Any] = {
        "name": f"tiny-{family.lower()}",
        "kind": "encoder",
        "head": "classifier",
        "base": {
            "hub_id": f"test/{family}",
            "architecture": f"{family}ForSequenceClassification",
            "parameters": 150_000,
            "licence": "none",
        },
        "prompt": {"template": TEMPLATES[family], "max_tokens": 96, "keep": "both_ends"},
        "train": {"method": "full", "learning_rate": 1e-3, "eval_rows": 30, "max_rows": 64},
        "score": {
            "engine": "transformers",
            "variants": [{"order": "ab", "max_tokens": 96}, {"order": "ba", "max_tokens": 96}],
            "chunk_rows": 8,
            "max_seqs": 4,
            "max_batched_tokens": 320,
        },
    }
    return entry | changed


def encoder_answers(folder: Path, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Oracle: logits (rows, 3) by transformers' own forward pass in float32, a row at a time, without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found: np.ndarray = torch.cat([model(torch.tensor([list(row)])).logits for row in rows]).numpy()
    return found
