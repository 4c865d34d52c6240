"""Waiting for what happens and not for a clock: one loop, which fails loudly and notices that what it waits for has died."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_SECONDS = 120  # no measure of anything: where it is reached, what is waited for does not come


def wait_until(condition: Callable[[], object], what: str, process: subprocess.Popen | None = None) -> None:  # type: ignore[type-arg]
    """Return once `condition()` holds; fail where `process`, which brings it about, has ended without.

    Under every test's own time limit there is one for each wait, so that a failure names what did not come.
    """
    until = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"exit status {process.returncode} before {what}{_last_words(process)}")
        assert time.monotonic() < until, f"still not after {LIMIT_SECONDS} s: {what}"
        time.sleep(0.005)


def _last_words(process: subprocess.Popen) -> str:  # type: ignore[type-arg]
    if process.stderr is None:
        return ""
    os.set_blocking(process.stderr.fileno(), False)  # what it left behind may hold the other end
    try:
        return ": " + os.read(process.stderr.fileno(), 1 << 16).decode()[-2000:]
    except BlockingIOError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
