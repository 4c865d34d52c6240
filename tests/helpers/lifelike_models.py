"""Tiny models of each family whose sizes and weights are as irregular as pretrained ones' are.

Where norms multiply by 1 everywhere, heads share no keys and a window is as long as a row, much that is wrong looks right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.classifiers import FAMILIES, SIZES
from tests.helpers.tiny_models import write_tokenizer

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 48}  # 4 * 48 is not the hidden size
WINDOW = 8  # shorter than a row
MORE: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW, "attn_logit_softcapping": 5.0},
    "gemma3": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
}


def write_lifelike(folder: Path, family: str) -> Path:
    """A folder of a base in bfloat16, with a tokenizer that has the three labels."""
    import torch
    import transformers

    config, model, more = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = -(-write_tokenizer(folder) // 64) * 64
    sizes = {**SIZES, **more, **HEADS, **MORE.get(family, {}), "vocab_size": vocabulary}
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            low, high = _range(name, family)
            if high:
                parameter.uniform_(low, high)
    made.to(torch.bfloat16).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def _range(name: str, family: str) -> tuple[float, float]:
    """Between which values a parameter is; (0, 0) for those that stay as they were made."""
    if name.endswith("bias"):  # zero at first; Qwen 2's of queries and keys are large
        return -0.5, 0.5
    if "norm" not in name:
        return 0.0, 0.0
    if not family.startswith("gemma"):
        return 0.2, 4.0
    bounded = family != "gemma" or "input_" not in name  # by a cap or norms; else attention is on one token, without a slope
    is_large = "layers" in name and "q_norm" not in name and "k_norm" not in name and bounded
    return (50.0, 70.0) if is_large else (-0.5, 3.0)  # Gemma 3's are near 60, of which a 1 added is 2 %
