"""Prompts of public solutions of LMSYS's competition, by name.

`zoo register --template` takes the names. Each is what several public notebooks and repositories build of a battle: turns
joined by a space, nothing for one that is empty. What a tokenizer itself puts before a text (and after an encoder's) is added
as for any template.
"""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import PromptSpec, changed
from zoo.entries.chat_template import end_token, template_prompt

TAGS = "<prompt>: {prompt}\n\n<response_a>: {response_a}\n\n<response_b>: {response_b}"
END = "{end}"  # the model's own end of a text, where trainers set add_eos_token
PUBLIC_PROMPTS = {
    "lmsys-tags": TAGS,
    "lmsys-tags-end": TAGS + END,
    "lmsys-model-a-b": "User prompt: {prompt}\n\nModel A :\n{response_a}\n\n--------\n\nModel B:\n{response_b}",
}


def public_prompt(folder: Path, name: str, *, classifier: bool) -> tuple[PromptSpec, tuple[int, ...]]:
    """A public prompt for a folder's tokenizer, and its label tokens.

    ZooError where that has none of its parts.
    """
    template = PUBLIC_PROMPTS[name]
    if template.endswith(END):
        template = template.removesuffix(END) + end_token(folder)
    spec, labels = template_prompt(folder, template, classifier=classifier)
    return changed(spec, turn_separator=" ", empty_text=""), labels
