"""`python -m zoo.tracking.guard COMMAND ...`: a command that ends with its starter.

Also with one that was killed by SIGKILL.

The starter keeps the write end of this process's standard input open and puts this process into a session of its own. When
the starter dies, the kernel closes that end, and everything in the session ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 10.0  # between the polite signal and the other


def main(command: list[str]) -> int:
    """Run a command to its end, or to that of standard input; its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_starter, args=(process,), daemon=True).start()
    return process.wait()


def _end_with_starter(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    signal_group(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_SECONDS)
    signal_group(signal.SIGKILL)


def signal_group(number: int) -> None:
    """Signal this process's own group, which its session holds alone."""
    os.killpg(os.getpgrp(), number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)  # told to all of the group: the command ends, then this one
    sys.exit(main(sys.argv[1:]))
