"""Pages of the notebooks, with the outputs that are kept in the files."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import nbformat


def notebook_page(path: Path) -> str:
    """A notebook as markdown; outputs are HTML that the markdown leaves as it is."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```ipython3\n{cell.source}\n```")
        parts += [_raw(_shown(output)) for output in cell.get("outputs", [])]
    title, *rest = parts
    return "\n\n".join([title, f"{{download}}`This page as a notebook <{path.name}>`. A test runs it.", *rest]) + "\n"


def _raw(text: str) -> str:
    """HTML for a page of markdown, in a fence that is longer than any run of backticks in it."""
    return f"``````{{raw}} html\n{text}\n``````"


def _shown(output: Any) -> str:
    """An output as a browser shows it: HTML first, as notebooks do, else its text."""
    data = output.get("data", {})
    if "text/html" in data:
        shown = data["text/html"]
    elif "image/png" in data:
        shown = f'<img alt="a figure" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    else:
        shown = f"<pre>{html.escape(output.get('text') or data.get('text/plain', ''))}</pre>"
    return f'<div class="notebook-output">{shown}</div>'
