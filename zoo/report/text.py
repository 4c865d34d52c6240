"""Terminal text: tables on stdout, notes with the time since start on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

_STARTED = time.monotonic()


def text_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, style: str = "table") -> str:
    """Rows as a rich table or as markdown."""
    if style == "markdown":
        lines = ["| " + " | ".join(cells) + " |" for cells in (headers, ["---"] * len(headers), *rows)]
        return "\n".join(lines)
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*row)
    buffer = StringIO()
    Console(file=buffer, width=140, markup=False, emoji=False).print(table)  # `[prompt]` is text, not markup
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def say(text: str) -> None:
    """A note on stderr with the time since start.

    What is going on, apart from results on stdout.
    """
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)
