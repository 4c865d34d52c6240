"""Sections of a report, written once: as a page of HTML, as markdown, and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.report.drawing import svg
from zoo.report.page import render
from zoo.report.text import Format, Table, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """A figure, and what it shows in words: for those who do not see it, and for markdown."""

    figure: Figure
    said: str


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables and figures below it."""

    title: str
    blocks: Sequence[str | Table | Drawn]


SECTIONS_STYLE = """
  .prose td.t { white-space: normal; overflow-wrap: anywhere } .scroll + .scroll { margin-top: 1.2rem }
  td.t, th.t { text-align: left } td.t { min-width: 5.5rem } td.t:nth-child(n+3) { min-width: 9rem }
  td.indent { white-space: pre-wrap }"""
BODY = """
{% for section in sections %}<h2>{{ section.title }}</h2>
{% for kind, block in section.blocks %}{% if kind == 'text' %}<p>{{ block }}</p>
{% elif kind == 'figure' %}<div class="scroll">{{ block }}</div>
{% else %}<div class="scroll"><table{% if block.prose %} class="prose"{% endif %}>
<thead><tr>{% for name, left in block.head %}<th{% if left %} class="t"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in block.rows %}<tr>{% for cell, left in row %}<td{% if left %} class="t
{%- if loop.first %} indent{% endif %}"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}{% endfor %}{% endfor %}"""


def sections_html(title: str, subtitle: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The report as HTML without any reference outside itself, in which every value is escaped."""
    drawn = [
        {"title": section.title, "blocks": [_html(block, f"s{i}-{j}") for j, block in enumerate(section.blocks)]}
        for i, section in enumerate(sections)
    ]
    return render(BODY, {"title": title, "subtitle": subtitle, "tiles": tiles, "sections": drawn}, style=SECTIONS_STYLE)


def _html(block: str | Table | Drawn, name: str) -> tuple[str, Any]:
    from markupsafe import Markup

    if isinstance(block, str):
        return "text", block
    if isinstance(block, Drawn):
        return "figure", Markup(svg(block.figure, name, block.said))
    left = [any(isinstance(row[place], str) for row in block.rows) for place in range(len(block.columns))]
    head = [(column.title, is_left) for column, is_left in zip(block.columns, left, strict=True)]
    rows = [[(cell, is_left) for cell, is_left in zip(row, left, strict=True)] for row in block.cells()]
    return "table", {"head": head, "rows": rows, "prose": any(column.prose for column in block.columns)}


def sections_markdown(title: str, subtitle: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The same as markdown; of a figure what it shows."""
    lines = [f"# {title}", "", subtitle, "", *(f"- {value}: {label}" for value, label in tiles)]
    for section in sections:
        lines += ["", f"## {section.title}"]
        for block in section.blocks:
            text = block.said if isinstance(block, Drawn) else block
            lines += ["", as_text([text], Format.markdown)]
    return "\n".join(lines) + "\n"


def sections_data(sections: Sequence[Section]) -> dict[str, list[Any]]:
    """The same as plain data: texts, and tables as records."""
    return {
        section.title: [
            block.records() if isinstance(block, Table) else getattr(block, "said", block) for block in section.blocks
        ]
        for section in sections
    }
