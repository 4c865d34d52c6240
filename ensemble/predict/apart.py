"""A prediction in a process of its own, for callers that have to outlive it.

Its watchdog ends the process at the budget's end, whatever hangs: that must not be a notebook's, nor a command's that goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.runner import interrupt


def predict_apart(
    plan: Path,
    battles: Path,
    output: Path,
    *,
    budget: str | None = None,
    scores: Mapping[str, Path] | None = None,
    like: Path | None = None,
    say: Say,
) -> None:
    """Predict the battles by the plan and write `output`, as `ensemble predict` does.

    `say` gets each line that it says. Ctrl-C ends the work early with a whole file, and goes on as KeyboardInterrupt; the
    next call goes on from there. ZooError, with the command's own words, where it cannot be done as asked or no member is in
    any row.
    """
    command = [sys.executable, "-m", "ensemble", "predict", str(plan), str(battles), "-o", str(output)]
    command += [] if budget is None else ["--budget", budget]
    command += [] if like is None else ["--like", str(like)]
    for name, path in (scores or {}).items():
        command += ["--scores", f"{name}={path}"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=_without_colours(), stdin=quiet, stdout=quiet, stderr=subprocess.PIPE)
    last = ""
    try:
        assert process.stderr is not None
        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            last = line or last
            if not line.startswith("error: "):
                say(line)
        code = process.wait()
    except KeyboardInterrupt:
        interrupt(process)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code:
        raise ZooError(last.removeprefix("error: ").removeprefix("warning: ") or f"exit code {code}", exit_code=code)


def _without_colours() -> dict[str, str]:
    """The environment in which progress comes in lines: a notebook's kernel claims to be a terminal by these names."""
    return {
        name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
    }
