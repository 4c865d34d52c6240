"""A model's chat format as pieces of text around the texts of a conversation.

The format is rendered once for each number of turns, with marks in the place of texts. So what users and models wrote is put
between the pieces as tokens, and can neither become a control token nor be changed by the template.
"""

from __future__ import annotations

import re
from pathlib import Path

from zoo.entries.chat_template import (
    MOST_CHARACTERS,
    TEMPLATE_GIB,
    TEMPLATE_SECONDS,
    chat_template,
    render_messages,
    tokenizer_settings,
)
from zoo.errors import ZooError
from zoo.models.bounded import ask, at
from zoo.models.prompts import clean

_MARK = re.compile("ZOO7f3aTEXT([0-9]+)END")  # nothing a template writes or changes: letters and digits alone


def chat_pieces(folder: Path, turns: int) -> list[list[str]] | None:
    """The pieces around the texts before a first answer, a second, ... the `turns`-th.

    Before the t-th stand 2 t - 1 texts, so there are 2 t pieces around them.

    None where the model has no chat template. The template runs in a child process within bounds (zoo/models/bounded.py).
    ZooError where it fails, or leaves out, doubles or moves a text.
    """
    arguments = {"folder": str(folder.absolute()), "turns": turns}
    found: list[list[str]] | None = ask(f"{__name__}:find_pieces", arguments, mend="mend its chat template")
    return found


def find_pieces(folder: str, turns: int) -> list[list[str]] | None:
    """What `chat_pieces` asks its child."""
    place = Path(folder)
    settings = tokenizer_settings(place)
    path, chat = chat_template(place, settings)
    if not chat:
        return None
    at(path, seconds=TEMPLATE_SECONDS, gib=TEMPLATE_GIB)
    pieces = []
    for texts in range(1, 2 * turns, 2):
        messages = [{"role": ("user", "assistant")[i % 2], "content": f"ZOO7f3aTEXT{i}END"} for i in range(texts)]
        rendered = clean(render_messages(chat, settings, path, messages))
        parts = _MARK.split(rendered)
        if [int(number) for number in parts[1::2]] != list(range(texts)):
            raise ZooError(f"{path}: the chat template leaves out, doubles or moves a message of {texts}; mend it")
        if len(rendered) > MOST_CHARACTERS:
            raise ZooError(f"{path}: the chat template makes {len(rendered)} characters of {texts} messages; mend it")
        pieces.append(parts[0::2])
    return pieces
