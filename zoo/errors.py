"""The one exception for errors that users cause, and texts made fit for a terminal.

An error is one line that names the row, key or file, and the mend.
"""

from __future__ import annotations

import json
import re

# Control characters (C0, DEL, C1), line and paragraph separators, marks that turn the direction of text, and lone surrogates:
# what lets an id, a header or a name move the cursor, hide text or end an error's one line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, keep: str = "") -> str:
    r"""Text for a terminal, control characters escaped as in JSON and TOML (`\u001b`).

    Those in `keep` stay.
    """
    return _UNPRINTABLE.sub(lambda c: c[0] if c[0] in keep else json.dumps(c[0])[1:-1], text)


def amount(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class ZooError(Exception):
    """Bad input or an unusable machine.

    The command lines print it as `error: ...` and exit with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(printable(message))
        self.exit_code = exit_code

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in the place of a traceback: IPython asks for it by this name."""
        return [f"error: {self}"]


class OutOfMemory(ZooError):
    """A stage that ended for want of memory: it may succeed where less runs beside it."""

    EXIT_CODE = 4
    SIGNS = (
        *("MemoryError", "out of memory"),  # of Python, torch and CUDA
        *("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"),  # of cuBLAS, whose workspace does not fit
        *("No available memory for the cache", "less than desired GPU memory utilization"),  # of vLLM
    )

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=self.EXIT_CODE)

    @classmethod
    def is_told_by(cls, text: str) -> bool:
        """Whether the text of an error, of torch, CUDA, vLLM or Python, says that memory was short."""
        return any(sign in text for sign in cls.SIGNS)
