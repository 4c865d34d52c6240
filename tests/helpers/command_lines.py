"""Command lines in this process: importing what a build needs takes longer than most builds in tests."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock


class Done(NamedTuple):
    """What a command left to its caller."""

    returncode: int
    stdout: str
    stderr: str


def run_command(main: Callable[[], None], name: str, *arguments: str, home: Path, folder: Path) -> Done:
    """Run the entry point of a command line as if it were called in `folder`, with its data in `home`."""
    out, error = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", [name, *arguments]),
        mock.patch.dict(os.environ, {"ZOO_HOME": str(home)}),
        chdir(folder),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Done(int(code or 0), out.getvalue(), error.getvalue())  # type: ignore[call-overload]
