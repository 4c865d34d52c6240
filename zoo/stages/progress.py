"""Progress bars and notes of a stage, kept apart from libraries' output."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

_terminal: TextIO = sys.stderr


def use_terminal(descriptor: int) -> None:
    """From now on progress goes to this file descriptor."""
    global _terminal
    _terminal = io.TextIOWrapper(os.fdopen(descriptor, "wb", 0), write_through=True, errors="replace")


def terminal() -> TextIO:
    """Where progress goes, for a process that shows some in this one's place."""
    return _terminal


def note(text: str) -> None:
    """One line, for a step whose length is not known beforehand."""
    print(f"  {text}", file=_terminal, flush=True)


def bar(total: int | None, description: str, unit: str, *, initial: int = 0, **options: Any) -> Any:
    """A tqdm bar; where nobody watches (no terminal) it prints a line every ten seconds at most."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=f"  {description}",
        unit=unit,
        initial=initial,
        file=_terminal,
        mininterval=0.2 if _terminal.isatty() else 10.0,
        dynamic_ncols=True,
        **options,
    )


class TokenBar:
    """A bar over tokens, which time goes by, not rows: the longest come first.

    Shows rows, rows/s, tokens/s and time left.
    """

    def __init__(self, tokens: int, rows: int) -> None:
        self._tokens, self._rows, self._done = tokens, rows, 0
        self._bar: Any = None

    def __enter__(self) -> TokenBar:
        self._bar = bar(self._tokens, "score", "token", unit_scale=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self) -> None:
        """The clock starts now: what came before was loading."""
        self._bar.unpause()
        self._bar.reset(self._tokens)
        self._done = 0

    def update(self, rows: int, tokens: int) -> None:
        """So many rows more, of so many tokens, are done.

        A chunk that an engine did not finish is counted again.
        """
        self._done = min(self._rows, self._done + rows)
        elapsed = max(self._bar.format_dict["elapsed"], 1e-6)
        self._bar.set_postfix_str(f"{self._done:,} of {self._rows:,} rows, {self._done / elapsed:.1f} row/s", refresh=False)
        self._bar.update(min(tokens, self._tokens - self._bar.n))
