"""The prompt of a new entry in its model's chat format, with labels of one token each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.contracts import PromptSpec
from zoo.errors import ZooError
from zoo.models.prompts import load_codec

QUESTION = """Which of two answers to a prompt would people prefer?

# Prompt
{prompt}

# Answer A
{response_a}

# Answer B
{response_b}

Say A, B or tie."""
LABELS = (("A", "B", "tie"), (" A", " B", " tie"))
PLAIN_ENDS = ("\nVerdict:\n", "\nVerdict:", "\nVerdict: ")  # of models without a chat format


def model_prompt(folder: Path) -> PromptSpec:
    """The first prompt, in chat format or plain text, after which labels are one token each."""
    reasons = []
    for template in _templates(folder):
        for labels in LABELS:
            spec = PromptSpec(template=template, labels=labels)
            try:
                load_codec(folder, spec)
            except ZooError as error:
                reasons.append(str(error))
                continue
            return spec
    raise ZooError(f"{folder}: no labels that are one token each ({reasons[0]})")


def _templates(folder: Path) -> list[str]:
    settings = _tokenizer_settings(folder)
    chat = _chat_template(folder, settings)
    if chat:
        rendered = render_chat(chat, settings, folder)
        return [rendered, rendered + "\n"]
    return [_start_token(folder) + QUESTION + end for end in PLAIN_ENDS]


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        loaded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ZooError(f"{path}: not JSON ({error}); copy it again") from error
    return loaded if isinstance(loaded, dict) else {}


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # named templates
        found = next((item.get("template") for item in found if item.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def render_chat(chat: str, settings: dict[str, Any], folder: Path) -> str:
    """A user turn that asks the question, and the start of the model's, in its chat format.

    The template is code of the model's makers: it runs in jinja's sandbox, with what transformers gives it.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026-01-01"  # a date that does not change the prompt from day to day
    tokens = {key: _token_text(settings.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    messages = [{"role": "user", "content": QUESTION}]
    try:
        text = environment.from_string(chat).render(
            messages=messages, add_generation_prompt=True, enable_thinking=False, tools=None, documents=None, **tokens
        )
    except (TemplateError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ZooError(f"{folder}: its chat template fails ({reason}); write the entry by hand") from error
    if text.count(QUESTION) != 1:
        raise ZooError(f"{folder}: its chat template changes the text of a message; write the entry by hand")
    return text


def _token_text(token: Any) -> str:
    return str((token.get("content") if isinstance(token, dict) else token) or "")


def _start_token(folder: Path) -> str:
    """The token that the tokenizer itself puts before a text, or nothing."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise ZooError(f"{path}: no such file; save the model's tokenizer in its fast form (tokenizer.json) there")
    tokenizer = Tokenizer.from_file(str(path))
    with_special = tokenizer.encode("x", add_special_tokens=True)
    starts = [token for token, special in zip(with_special.tokens, with_special.special_tokens_mask, strict=True) if special]
    return starts[0] if starts and with_special.special_tokens_mask[0] else ""
