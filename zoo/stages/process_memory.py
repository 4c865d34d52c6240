"""Peak memory of a stage's process tree: by the kernel's count, and by sampling."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import psutil

SAMPLE_SECONDS = 1.0


class PeakWatch:
    """Largest memory that this process and all that it started held at once, since it was made.

    The sum of resident sizes counts what processes share once for each. `ru_maxrss` is no measure of it: a child of an exec
    inherits the peak of whoever launched it.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._asked = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while not self._asked.wait(SAMPLE_SECONDS):
            self._seen = max(self._seen, tree_bytes())

    def peak_bytes(self) -> int:
        """The peak so far; sampling ends."""
        self._asked.set()
        return max(self._seen, tree_bytes(), own_peak_bytes())


def tree_bytes() -> int:
    """Resident bytes of this process and all that it has started."""
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            total += process.memory_info().rss
    return total


def own_peak_bytes() -> int:
    """Largest resident size of this process since it was started, which psutil does not tell.

    0 where the kernel does not.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0
