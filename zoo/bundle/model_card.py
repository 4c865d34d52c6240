"""The model card of an exported folder: what it is, how to ask it, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence

from zoo.contracts import LABELS, Base, Order, PromptSpec
from zoo.report.run_report import Run
from zoo.report.sections import Section, sections_markdown

CARD = "README.md"
TOLD = ("Numbers", "Data", "Recipe", "Ladder", "Cost", "Lineage")  # of the report; its slices and curves stay at home

_READ = """import json
import re
from pathlib import Path

from tokenizers import Tokenizer

folder = Path(FOLDER)  # the folder that this card is in
asked = json.loads((folder / "prompt.json").read_text())
battle = {"prompt": "What is 2 + 2?", "response_a": "4.", "response_b": "Five, I think."}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_truncation()
tokenizer.no_padding()
ids = []  # of each part by itself, as in training: no token goes over the end of a field
for i, part in enumerate(re.split(r"\\{(prompt|response_a|response_b)\\}", asked["template"])):
    ids += tokenizer.encode(battle[part] if i % 2 else part, add_special_tokens=False).ids
"""
_TRANSFORMERS = """import torch
from transformers import AutoModelForCausalLM

model = {load}
with torch.inference_mode():
    logits = model(torch.tensor([ids], device=model.device)).logits[0, -1].float()
probabilities = torch.softmax(logits[asked["label_ids"]], dim=-1).tolist()
print(dict(zip(["a", "b", "tie"], probabilities)))
"""
_WHOLE = 'AutoModelForCausalLM.from_pretrained(folder, dtype="auto")'
_PEFT = """PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(BASE, dtype="auto"{options}),  # the base's folder or its name on the hub
    folder,
)"""
_NF4 = """, quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )"""
_VLLM = """import math

from vllm import LLM, SamplingParams

llm = LLM(str(folder), logprobs_mode="raw_logits", max_model_len=asked["max_tokens"] + 1)
one = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=asked["label_ids"])
(answer,) = llm.generate([{"prompt_token_ids": ids}], one)
logits = [answer.outputs[0].logprobs[0][token].logprob for token in asked["label_ids"]]
weights = [math.exp(logit - max(logits)) for logit in logits]
print(dict(zip(["a", "b", "tie"], (weight / sum(weights) for weight in weights))))
"""


def model_card(run: Run, form: str, base: Base, prompt: PromptSpec, sections: Sequence[Section], *, nf4: bool) -> str:
    """The card as markdown with the hub's metadata above it.

    `nf4`: the adapter learned on weights rounded to NF4, and gives what was measured on these alone.
    """
    entry = run.last.request.entry
    told = [section for section in sections if section.title in TOLD]
    said = f"{entry}, {_WHAT.get(form, f'quantized: {form}')}. Which of two answers people prefer: three probabilities."
    return "\n".join(
        [
            _metadata(base, form),
            sections_markdown(f"{entry}: {form}", said, [], []),
            *_use(form, prompt, nf4=nf4, measured=run.member.table.card.variant.order if run.member else None),
        ]
    ) + _made(base, told)


_WHAT = {"adapter": "a low-rank adapter for its base", "merged": "whole weights"}


def _metadata(base: Base, form: str) -> str:
    """The hub's front matter; https://huggingface.co/docs/hub/model-cards. JSON is YAML."""
    facts = {
        "license": "other",
        "license_name": base.licence,
        "base_model": base.hub_id,
        "base_model_relation": "adapter" if form == "adapter" else "finetune" if form == "merged" else "quantized",
        "library_name": "peft" if form == "adapter" else "transformers",
        "tags": ["preference-prediction", "llm-judge"],
    }
    return "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in facts.items()) + "\n---\n"


def _use(form: str, prompt: PromptSpec, *, nf4: bool, measured: Order | None) -> list[str]:
    """How a battle is asked, with code that runs as it stands once FOLDER and BASE are known.

    `measured`: the order in which the run's numbers were measured, where it has some.
    """
    labels = ", ".join(
        f"`{label}` ({name})" for label, name in zip(prompt.labels, ("A wins", "B wins", LABELS[2]), strict=True)
    )
    lines = [
        "## How to ask it",
        "",
        f"`prompt.json` has the template, and the tokens of its labels: {labels}. The probabilities are the softmax of the "
        "three tokens' logits right after the template. The template's own text may form special tokens, a battle's never: "
        f"take control tokens out of what people wrote. Longer battles are cut to {prompt.max_tokens} tokens: each field has "
        "its share of what the template leaves, and keeps "
        f"{'its end' if prompt.keep == 'end' else 'its beginning and its end'}. Asked in both orders, with A and B exchanged "
        "back, and averaged, it favours neither place."
        + (f" The numbers below were measured with answer {measured[0].upper()} shown first." if measured else ""),
        "",
        *_code(_READ),
    ]
    if form == "adapter":
        load = _PEFT.format(options=_NF4 if nf4 else "")
        imports = f"{'from transformers import BitsAndBytesConfig' if nf4 else ''}\nfrom peft import PeftModel\n".lstrip()
        rounded = "It learned on a base in NF4, which its update makes up for: on 16-bit weights it gives other probabilities."
        return [*lines, *([rounded, ""] if nf4 else []), *_code(imports + _TRANSFORMERS.replace("{load}", load))]
    if form == "merged":
        return [*lines, *_code(_TRANSFORMERS.replace("{load}", _WHOLE)), "Or by vLLM:", "", *_code(_VLLM)]
    return [*lines, "By vLLM:", "", *_code(_VLLM)]


def _code(text: str) -> list[str]:
    return ["```python", text.rstrip(), "```", ""]


def _made(base: Base, sections: Sequence[Section]) -> str:
    """Base and licence, then what the report of the run says."""
    head = f"## Base and licence\n\n{base.hub_id} ({base.architecture}), revision {base.revision}; licence: {base.licence}. "
    head += "Read it, and the data's, before these weights are handed on: neither was checked.\n"
    body = sections_markdown("", "", [], sections).split("\n", 4)[-1]
    return head + "\n" + body.lstrip("\n")
