"""Pages as fragments of HTML, as a notebook shows them beside what it runs."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence

from zoo.report.text import Page, Table, fitting

WIDTH = 110  # characters of a table beside a notebook's margin; columns that have no room there are named below it


def fragment(page: Page) -> str:
    """A page's texts and tables as HTML, every value escaped; the notebook's own style shows it."""
    found: list[str] = []
    for is_text, together in itertools.groupby(page, key=lambda block: isinstance(block, str) and "\n" not in block):
        blocks = list(together)
        found += [_paragraphs(list(map(str, blocks)))] if is_text else map(_laid_out, blocks)
    return "\n".join(found)


def image(png: bytes, said: str, *, width: int = 640) -> str:
    """A picture within the HTML, at most `width` pixels wide.

    `said`: what it shows, for those who do not see it.
    """
    from markupsafe import escape

    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(said)}" style="max-width: 100%; width: {width}px" src="data:image/png;base64,{data}">'


def frame(page: str, title: str, *, height: int = 560) -> str:
    """A whole page in a frame of its own, whose style stays in there."""
    from markupsafe import escape

    style = f"width: 100%; height: {height}px; border: 1px solid #ccc"
    return f'<iframe title="{escape(title)}" style="{style}" srcdoc="{escape(page)}"></iframe>'


def _paragraphs(lines: Sequence[str]) -> str:
    """Lines as paragraphs, which empty ones part."""
    from markupsafe import escape

    parts = [list(part) for filled, part in itertools.groupby(lines, key=bool) if filled]
    return "\n".join(f"<p>{'<br>'.join(escape(line) for line in part)}</p>" for part in parts)


def _laid_out(block: str | Table) -> str:
    from markupsafe import escape

    return _table(block) if isinstance(block, Table) else f"<pre>{escape(block)}</pre>"


def _table(table: Table) -> str:
    from markupsafe import escape

    if not table.rows:
        return ""
    kept, dropped, _ = fitting(table, WIDTH)
    texts = [place for place in kept if any(isinstance(row[place], str) for row in table.rows)]
    align = {place: "left" if place in texts else "right" for place in kept}
    head = "".join(f'<th style="text-align: {align[i]}">{escape(table.columns[i].title)}</th>' for i in kept)
    lines = []
    for number, row in enumerate(table.cells()):
        weight = "; font-weight: bold" if number in table.best else ""
        cells = "".join(f'<td style="text-align: {align[i]}{weight}">{escape(row[i])}</td>' for i in kept)
        lines.append(f"<tr>{cells}</tr>")
    note = f"<p>more columns in the frame: {escape(', '.join(dropped))}</p>" if dropped else ""
    body = "\n".join(lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{note}"
