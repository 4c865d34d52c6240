"""Rows of battles on a page, to be read by eye: folded, both answers side by side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from zoo.data.turns import Turns

MOST_CHARACTERS = 3_000  # of a text on the page
MOST_SEEN = 90  # of the prompt in the line that is always seen
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Shown:
    """One row on a page.

    Names with values, of which the first two stand in the line that is always seen; the turns of the prompt, and each answer
    under its name. `bars`: probabilities as `zoo.report.page.stacked_bars` has them, where somebody gave any.
    """

    id: str
    facts: list[tuple[str, str]]
    prompt: list[str]
    answers: list[tuple[str, list[str]]]
    bars: dict[str, Any] | None = None

    @property
    def head(self) -> str:
        """The beginning of the prompt for the line that is always seen; no sign in it turns that."""
        return _without_turns(self.prompt[0] if self.prompt else "")[:MOST_SEEN] or "no text"

    @property
    def called(self) -> str:
        """The id likewise."""
        return _without_turns(self.id)


def _without_turns(text: str) -> str:
    """A text without signs of direction.

    One that opens an isolate takes the end of the element's own for its end, and turns what follows.
    """
    return _DIRECTION.sub("", text)


def texts(turns: Turns) -> list[str]:
    """Turns for a page: those of many characters are cut, and say so."""
    return [
        text
        if len(text) <= MOST_CHARACTERS
        else f"{text[:MOST_CHARACTERS]} [... {len(text) - MOST_CHARACTERS:,} characters more]"
        for text in (turn or "" for turn in turns)
    ]


READ_STYLE = """
  details { margin: .4rem 0; border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .8rem }
  summary { cursor: pointer; overflow-wrap: anywhere } details[open] > summary { margin-bottom: .4rem }
  .said { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0 .8rem; padding-left: .6rem;
    border-left: 3px solid var(--faint); font-size: .95rem }
  .sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1.2rem }
  h4 { font-size: .9rem; margin: .3rem 0 0; color: var(--soft) }"""

# The macro needs that of `zoo.report.page.BARS` before it.
READ = """{% macro read(row) %}<details>
<summary><bdi>{{ row.head }}</bdi>
{%- for name, value in row.facts[:2] %} · {{ name }}: {{ value }}{% endfor %}</summary>
<p class="note"><bdi>{{ row.called }}</bdi>{% for name, value in row.facts %} · {{ name }}: {{ value }}{% endfor %}</p>
{% if row.bars %}{{ bars(row.bars) }}{% endif %}
{% for turn in row.prompt %}<h4>prompt{% if row.prompt | length > 1 %}, turn {{ loop.index }}{% endif %}</h4>
<div class="said" dir="auto">{{ turn }}</div>
{% set place = loop.index0 %}<div class="sides">{% for name, said in row.answers %}<div><h4>{{ name }}</h4>
<div class="said" dir="auto">{{ said[place] if place < said | length else '' }}</div></div>{% endfor %}</div>
{% endfor %}</details>{% endmacro %}"""
