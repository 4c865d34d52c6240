"""The `zoo` command line: each command is one short call of the library."""

from __future__ import annotations

import sys
from collections.abc import Callable


def __getattr__(name: str) -> Callable[[], None]:
    """`main`, which scripts of an installation before `zoo.cli.main` take from here: one line instead of a traceback."""
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _stale


def _stale() -> None:
    print("error: this `zoo` was installed from an older tree; run `make setup`", file=sys.stderr)
    sys.exit(2)
