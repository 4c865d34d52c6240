"""What `zoo register` writes for an encoder.

Its prompt stands between its own special tokens, and it is trained whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.contracts import Encoder, PromptSpec, Shape
from zoo.errors import ZooError
from zoo.models.encoders import classifier_name
from zoo.models.plain_text import control_ids, read_tokenizer_file
from zoo.models.prompts import bounded_label_ids

# What a row begins with and what stands between its texts, as tokenizers of the families call them.
ENDS = (("[CLS]", "[SEP]", "[SEP]"), ("<s>", "</s></s>", "</s>"))
LARGE = 250_000_000  # parameters from which encoders take smaller steps, and layers are computed again
MOST_TOKENS = {"ModernBert": 2048}  # of others 512, for which they were made
UNLIKE_SHAPE = {"encoder", "classes", "attn_logit_softcapping"}  # of no entry's [shape]


def encoder_prompt(folder: Path, longest: int) -> PromptSpec:
    """The three texts between the tokenizer's own special tokens, either end of each kept.

    ZooError where it has none that are known, or cannot be opened.
    """
    special = set(control_ids(read_tokenizer_file(folder / "tokenizer.json")).values())
    ends = next((one for one in ENDS if {one[0], one[2]} <= special), None)
    if ends is None:
        raise ZooError(f"{folder}: its tokenizer has neither [CLS] and [SEP] nor <s> and </s>; give a model that has")
    first, between, last = ends
    prompt = PromptSpec(
        template=f"{first}{{prompt}}{between}{{response_a}}{between}{{response_b}}{last}", max_tokens=longest, keep="both_ends"
    )
    bounded_label_ids(folder, prompt)
    return prompt


def encoder_settings(
    family: Encoder, base: dict[str, Any], shape: Shape, folder: Path, prompt: PromptSpec | None = None
) -> dict[str, Any]:
    """The sections of an entry for an encoder; `base` is its [base] but for the architecture.

    `prompt`: the one that it was trained with elsewhere.
    """
    most = MOST_TOKENS.get(family, 512)
    longest = min(most, shape.max_position_embeddings or most)
    prompt = encoder_prompt(folder, longest) if prompt is None else prompt
    told = {"keep": "both_ends", "max_tokens": longest} | prompt.model_dump(mode="json", exclude_unset=True)
    told.pop("labels", None)  # there are no label tokens
    large = base["parameters"] >= LARGE
    train: dict[str, Any] = {"method": "full", "learning_rate": 1e-5 if large else 2e-5, "weight_decay": 0.01}
    train |= {"warmup_fraction": 0.1, "epochs": 2, "keep": "best"}
    return {
        "kind": "encoder",
        "head": "classifier",
        "base": {**base, "architecture": classifier_name(family)},
        "shape": shape.model_dump(exclude_none=True, exclude=UNLIKE_SHAPE),
        "prompt": {"template": told.pop("template"), **told},
        "train": train | ({"gradient_checkpointing": True} if large else {}),
        "score": {
            "engine": "transformers",
            "variants": [{"order": order, "max_tokens": told["max_tokens"]} for order in ("ab", "ba")],
        },
    }
