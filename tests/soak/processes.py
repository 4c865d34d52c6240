"""Commands as processes of a session of their own: killed at a moment, waited for, and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG_SECONDS = 600.0  # no command of the soak takes a third of this on two busy cores


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code` is None where it did not by itself; `seconds` from start to end, as seen from outside."""

    code: int | None
    seconds: float
    killed: bool
    errors: str
    output: str

    @property
    def hung(self) -> bool:
        return self.code is None and not self.killed


def environment(home: Path, **more: str) -> dict[str, str]:
    """A user's environment whose only home is `home`; no settings of who runs the soak reach it."""
    dropped = {"ZOO_ENTRIES", "ZOO_TARGETS", "MLFLOW_TRACKING_URI", "ZOO_SETTINGS"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "ZOO_HOME": str(home), "OMP_NUM_THREADS": "1", "ZOO_SETTINGS": str(home / "no-settings.toml"), **more}


def start(arguments: Sequence[str], folder: Path, **options: Any) -> subprocess.Popen[bytes]:
    """`zoo ...` or `ensemble ...`, as a session of its own."""
    program, *rest = arguments
    return subprocess.Popen(
        [sys.executable, "-m", program, *rest], cwd=folder, start_new_session=True, stdin=subprocess.DEVNULL, **options
    )


def run(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    *,
    kill_after: float | None = None,
    everything: bool = True,
    limit: float = HANG_SECONDS,
) -> Ended:
    """Run a command to its end, or send it SIGKILL after some seconds: with all its children, or alone."""
    begun = time.monotonic()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as error:
        process = start(arguments, folder, env=env, stdout=out, stderr=error)
    killed = False
    try:
        process.wait(limit if kill_after is None else kill_after)
    except subprocess.TimeoutExpired:
        killed = kill_after is not None
        kill(process.pid) if everything or not killed else process.kill()
        process.wait()
    seconds = time.monotonic() - begun
    code = None if killed or seconds >= limit else process.returncode
    read = [(folder / name).read_text(errors="replace") for name in ("stderr", "stdout")]
    return Ended(code, seconds, killed, *read)


def kill(session: int) -> None:
    """SIGKILL to every process of a session: stopped, deaf and orphaned ones too."""
    for pid in _members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _members(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(stat.parent.name))
    return found
