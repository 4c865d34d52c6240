"""The prompt of a new entry in its model's chat format, with labels of one token each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo.contracts import PromptSpec, explain
from zoo.errors import ZooError
from zoo.models.bounded import ask, at
from zoo.models.encoders import folder_encoder
from zoo.models.prompts import clean, load_codec
from zoo.models.tokenizer_file import TOKENIZER_SECONDS, open_tokenizer
from zoo.reading import read_bytes, read_json_object

QUESTION = """Which of two answers to a prompt would people prefer?

# Prompt
{prompt}

# Answer A
{response_a}

# Answer B
{response_b}

Say A, B or tie."""
LABELS = (("A", "B", "tie"), (" A", " B", " tie"))
OTHER_LABELS = (("A", "B", "C"), (" A", " B", " C"), ("1", "2", "3"))  # of what does not answer by them
TEMPLATE_SECONDS = 10  # of processor time: real ones take milliseconds
TEMPLATE_GIB = 1
MOST_TEMPLATE_BYTES = 4 << 20
MOST_CHARACTERS = 20_000  # of a prompt without its battle: real ones are below 2,000
PLAIN_ENDS = ("\nVerdict:\n", "\nVerdict:", "\nVerdict: ")  # of models without a chat format


def model_prompt(folder: Path) -> tuple[PromptSpec, tuple[int, ...]]:
    """The first prompt after which labels are one token each, and those tokens.

    It is in the model's chat format, or plain text where it has none.
    The model's files are read in a child process within bounds (zoo/models/bounded.py): a template is a program of its makers.
    """
    arguments = {"folder": str(folder.absolute()), "template_seconds": TEMPLATE_SECONDS}
    found = ask(f"{__name__}:find_prompt", arguments, mend="mend the file, or write the entry by hand")
    return PromptSpec.model_validate(found["prompt"]), tuple(found["labels"])


def template_prompt(folder: Path, template: str, *, classifier: bool) -> tuple[PromptSpec, tuple[int, ...]]:
    """The prompt of a template that somebody trained with, and its label tokens.

    It begins with the token that the tokenizer itself puts before a text, as trainers' calls do, and of an encoder ends with
    the one that it puts after it. Labels are the first that are one token each after it; a `classifier` has none of its own,
    and takes any.
    """
    arguments = {"folder": str(folder.absolute()), "template": template, "classifier": classifier}
    found = ask(f"{__name__}:find_labels", arguments, mend="copy the model's tokenizer.json again")
    return PromptSpec.model_validate(found["prompt"]), tuple(found["labels"])


def find_labels(folder: str, template: str, classifier: bool) -> dict[str, Any]:
    """What `template_prompt` asks its child."""
    place = Path(folder)
    at(place / "tokenizer.json", seconds=TOKENIZER_SECONDS)
    (start, end), reasons = _ends(place), []
    template = template if template.startswith(start) else start + template
    if folder_encoder(place) and not template.endswith(end):
        template += end
    for labels in (*LABELS, *(OTHER_LABELS if classifier else ())):
        try:
            return {
                "prompt": {"template": template, "labels": labels},
                "labels": load_codec(place, PromptSpec(template=template, labels=labels)).label_ids,
            }
        except ZooError as error:
            reasons.append(str(error))
    raise ZooError(f"{folder}: no labels that are one token each ({reasons[0]}); give a prompt.json with its `labels`")


def find_prompt(folder: str, template_seconds: int) -> dict[str, Any]:
    """What `model_prompt` asks its child."""
    place, reasons = Path(folder), []
    templates = _templates(place, template_seconds)
    at(place / "tokenizer.json", seconds=TOKENIZER_SECONDS)
    open_tokenizer(place / "tokenizer.json")  # else what is wrong with it would be a reason against every label
    for template, labels in itertools.product(templates, LABELS):
        try:
            spec = PromptSpec(template=template, labels=labels)
            ids = load_codec(place, spec).label_ids
        except ValidationError as error:
            raise ZooError(f"{folder}: {explain(error, PromptSpec)} in its chat format; write the entry by hand") from error
        except ZooError as error:
            reasons.append(str(error))
            continue
        return {"prompt": {"template": template, "labels": labels}, "labels": ids}
    raise ZooError(f"{folder}: no labels that are one token each ({reasons[0]})")


def _templates(folder: Path, seconds: int) -> list[str]:
    settings = tokenizer_settings(folder)
    path, chat = chat_template(folder, settings)
    if chat:
        at(path, seconds=seconds, gib=TEMPLATE_GIB)
        rendered = render_chat(chat, settings, path)
        return [rendered, rendered + "\n"]
    at(folder / "tokenizer.json", seconds=TOKENIZER_SECONDS)
    return [_ends(folder)[0] + QUESTION + end for end in PLAIN_ENDS]


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json; empty where a model has none."""
    path = folder / "tokenizer_config.json"
    return read_json_object(path, mend="copy it again") if os.path.lexists(path) else {}


def chat_template(folder: Path, settings: dict[str, Any]) -> tuple[Path, str | None]:
    """The file that holds the chat template, and the template; None where there is none."""
    path = folder / "chat_template.jinja"
    if os.path.lexists(path):
        try:
            return path, read_bytes(path, MOST_TEMPLATE_BYTES, mend="copy it again").decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ZooError(f"{path}: not UTF-8 ({error}); copy it again") from error
    found = settings.get("chat_template")
    if isinstance(found, list):  # named templates
        named = [item for item in found if isinstance(item, dict)]
        found = next((item.get("template") for item in named if item.get("name") == "default"), None)
    return folder / "tokenizer_config.json", found if isinstance(found, str) else None


def render_chat(chat: str, settings: dict[str, Any], path: Path) -> str:
    """A user turn that asks the question, and the start of the model's, in its chat format."""
    text = render_messages(chat, settings, path, [{"role": "user", "content": QUESTION}])
    if len(text) > MOST_CHARACTERS:
        raise ZooError(f"{path}: the chat template makes {len(text)} characters of one question; write the entry by hand")
    if text.count(QUESTION) != 1:
        raise ZooError(f"{path}: the chat template changes the text of a message; write the entry by hand")
    if text != clean(text):
        raise ZooError(f"{path}: the chat template writes half of a surrogate pair; mend it, or write the entry by hand")
    return text


def render_messages(chat: str, settings: dict[str, Any], path: Path, messages: Sequence[dict[str, str]]) -> str:
    """Messages and the start of the model's next, in its chat format.

    The template, of the file `path`, is code of the model's makers: it runs in jinja's sandbox, with what transformers gives
    it, and may raise whatever Python can.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026-01-01"  # a date that does not change the prompt from day to day
    tokens = {key: _token_text(settings.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    try:
        return environment.from_string(chat).render(
            messages=messages, add_generation_prompt=True, enable_thinking=False, tools=None, documents=None, **tokens
        )
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ZooError(f"{path}: the chat template fails ({reason}); mend it, or write the entry by hand") from error


def end_token(folder: Path) -> str:
    """The token that ends a text, by tokenizer_config.json. ZooError where it names none."""
    token = _token_text(tokenizer_settings(folder).get("eos_token"))
    if not token:
        raise ZooError(f"{folder / 'tokenizer_config.json'}: names no eos_token; give the prompt's text in a file")
    return token


def _token_text(token: Any) -> str:
    return str((token.get("content") if isinstance(token, dict) else token) or "")


def _ends(folder: Path) -> tuple[str, str]:
    """The tokens that the tokenizer itself puts before and after a text, or nothing."""
    found = open_tokenizer(folder / "tokenizer.json").encode("x", add_special_tokens=True)
    first, last = (found.tokens[place] if found.special_tokens_mask[place] else "" for place in (0, -1))
    return first, last
