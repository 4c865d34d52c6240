"""The model card of an exported folder: what it is, how to ask it, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence

from zoo.bundle.asking import LAST, MEAN, Asking
from zoo.bundle.card_code import READ, transformers_code, vllm_code
from zoo.contracts import LABELS, Base, Order
from zoo.report.run_report import Run
from zoo.report.sections import Section, sections_markdown

CARD = "README.md"
PLACES = ("A wins", "B wins", LABELS[2])
TOLD = ("Numbers", "Data", "Recipe", "Ladder", "Cost", "Lineage")  # of the report; its slices and curves stay at home


def model_card(run: Run, asking: Asking, base: Base, sections: Sequence[Section]) -> str:
    """The card as markdown with the hub's metadata above it."""
    entry, form = run.last.request.entry, asking.form
    told = [section for section in sections if section.title in TOLD]
    said = f"{entry}, {_WHAT.get(form, f'quantized: {form}')}. Which of two answers people prefer: three probabilities."
    return "\n".join(
        [
            _metadata(base, asking),
            sections_markdown(f"{entry}: {form}", said, [], []),
            *_use(asking, measured=run.member.table.card.variant.order if run.member else None),
        ]
    ) + _made(base, told)


_WHAT = {"adapter": "a low-rank adapter for its base", "merged": "whole weights"}


def _metadata(base: Base, asking: Asking) -> str:
    """The hub's front matter; https://huggingface.co/docs/hub/model-cards. JSON is YAML."""
    form = asking.form
    facts = {
        "license": "other",
        "license_name": base.licence,
        "base_model": base.hub_id,
        "base_model_relation": "adapter" if form == "adapter" else "finetune" if form == "merged" else "quantized",
        "library_name": "peft" if form == "adapter" else "transformers",
        **({"pipeline_tag": "text-classification"} if asking.head == "classifier" else {}),
        "tags": ["preference-prediction", "llm-judge"],
    }
    return "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in facts.items()) + "\n---\n"


def _use(asking: Asking, *, measured: Order | None) -> list[str]:
    """How a battle is asked, with code that runs as it stands once FOLDER and BASE are known.

    `measured`: the order in which the run's numbers were measured, where it has some.
    """
    prompt = asking.prompt
    lines = [
        "## How to ask it",
        "",
        f"{_answers(asking)} The template's own text may form special tokens, a battle's never: "
        "take control tokens, and all others that were added to its vocabulary, out of what people wrote. Turns of a "
        "conversation are joined by `turn_separator`; for one without text stands `empty_text`. "
        f"Longer battles are cut to {prompt.max_tokens} tokens: each field has "
        "its share (`shares`) of what the template leaves, and keeps "
        f"{'its end' if prompt.keep == 'end' else 'its beginning and its end'}. Asked in both orders, with A and B exchanged "
        "back, and averaged, it favours neither place."
        + (f" The numbers below were measured with answer {measured[0].upper()} shown first." if measured else ""),
        "",
        *_code(READ),
    ]
    if asking.form == "adapter":
        rounded = "It learned on a base in NF4, which its update makes up for: on 16-bit weights it gives other probabilities."
        return [*lines, *([rounded, ""] if asking.nf4 else []), *_code(transformers_code(asking))]
    if asking.encoder:
        return [*lines, *_code(transformers_code(asking)), "vLLM was not tried with it.", ""]
    if asking.form == "merged":
        return [*lines, *_code(transformers_code(asking)), "Or by vLLM:", "", *_code(vllm_code(asking))]
    return [*lines, "By vLLM:", "", *_code(vllm_code(asking)), _IN_TRANSFORMERS.get(asking.form, _COMPRESSED), ""]


def _answers(asking: Asking) -> str:
    """Where three logits come from, and what they stand for."""
    if asking.head == "labels":
        labels = ", ".join(f"`{label}` ({name})" for label, name in zip(asking.prompt.labels, PLACES, strict=True))
        return (
            f"`prompt.json` has the template, and the tokens of its labels: {labels}. The probabilities are the softmax of the "
            "three tokens' logits right after the template."
        )
    classes = ", ".join(f"`{label}` ({name})" for label, name in zip(LABELS, PLACES, strict=True))
    capped = (
        f"soft-capped logits, {asking.softcap:g} * tanh(logit / {asking.softcap:g}) (`softcap`): so the head learned, and "
        "neither transformers nor vLLM applies it"
        if asking.softcap
        else "logits"
    )
    what = {LAST: "the last token", MEAN: "the mean of all tokens"}.get(asking.reads, "the first token")
    return (
        f"`prompt.json` has the template with all its special tokens; no others are added. A head of three outputs reads "
        f"{what}'s final state: {classes}, in this order (`id2label`), A being the answer that is shown first. "
        f"The probabilities are the softmax of the {capped}. Rows of a batch are padded on the right with token "
        f"{asking.pad_token_id} (`pad_token_id`), and have an attention mask."
    )


# What of a quantized folder transformers takes, by its own requirements (5.19).
_IN_TRANSFORMERS = {"awq": "transformers loads AWQ by the package gptqmodel alone; that was not tried with it."}
_COMPRESSED = "transformers loads it by the package compressed-tensors; that was not tried with it."


def _code(text: str) -> list[str]:
    return ["```python", text.rstrip(), "```", ""]


def _made(base: Base, sections: Sequence[Section]) -> str:
    """Base and licence, then what the report of the run says."""
    head = f"## Base and licence\n\n{base.hub_id} ({base.architecture}), revision {base.revision}; licence: {base.licence}. "
    head += "Read it, and the data's, before these weights are handed on: neither was checked.\n"
    body = sections_markdown("", "", [], sections).split("\n", 4)[-1]
    return head + "\n" + body.lstrip("\n")
