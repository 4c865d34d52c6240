"""The deadline of a prediction: a whole file, never later than the budget.

Three lines of defence, each for when the one before fails: jobs get deadlines of their own (`ensemble.predict.replan`), the
loop stops in time for the last blend (`Deadline.work_ends`), and a watchdog thread ends this process and its jobs at the
budget.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from zoo.errors import ZooError

SHORTEST_RESERVE_SECONDS = 0.8  # the last look at the jobs' files, ending them and this process, on a busy machine
RESERVED_WRITES = 3.0  # the last write may take this many times the slowest one so far
RESERVED_SHARE, LONGEST_RESERVE_SECONDS = 0.01, 60.0  # share of the budget kept for delays on a busy machine
WATCHDOG_SHARE, SHORTEST_WATCHDOG_SECONDS, LONGEST_WATCHDOG_SECONDS = 0.002, 0.3, 5.0  # the watchdog comes before the end
LOOK_SECONDS = 1.0  # the watchdog looks at the clock so often: it may be another than the one that it sleeps by
SHORTEST_BUDGET_SECONDS = 5.0  # starting Python, reading a plan and a few battles on a busy machine, and the reserve
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_SHARE, LONGEST_GRACE_SECONDS = 0.02, 10.0  # between SIGTERM and SIGKILL


class Deadline:
    """The clock of one prediction: seconds since its process started, against its budget."""

    def __init__(self, budget_seconds: float, started_at: float) -> None:
        """`started_at`: when the process started, on the clock of `time.monotonic()`.

        ZooError for a budget in which no prediction can be made.
        """
        if budget_seconds < SHORTEST_BUDGET_SECONDS:
            raise ZooError(
                f"budget of {budget_seconds:g} s: starting takes as long; give {SHORTEST_BUDGET_SECONDS:g} s at least"
            )
        self.budget_seconds = budget_seconds
        self.started_at = started_at
        self.write_seconds = 0.0
        self.grace_seconds = min(LONGEST_GRACE_SECONDS, GRACE_SHARE * budget_seconds)

    def now(self) -> float:
        """Seconds since process start."""
        return time.monotonic() - self.started_at

    def measured_write(self, seconds: float) -> None:
        """Blending and writing took this long; the slowest one counts."""
        self.write_seconds = max(self.write_seconds, seconds)

    @property
    def work_ends(self) -> float:
        """Seconds since process start after which only the last blend and write are due."""
        reserve = RESERVED_WRITES * self.write_seconds + min(LONGEST_RESERVE_SECONDS, RESERVED_SHARE * self.budget_seconds)
        return self.budget_seconds - SHORTEST_RESERVE_SECONDS - reserve

    @property
    def watchdog_at(self) -> float:
        """Seconds since process start at which the watchdog acts; always after `work_ends`."""
        early = min(LONGEST_WATCHDOG_SECONDS, WATCHDOG_SHARE * self.budget_seconds)
        return self.budget_seconds - max(SHORTEST_WATCHDOG_SECONDS, early)


def end_process(code: int) -> None:
    """End this process at once, whatever its other threads do.

    Nothing is flushed: what reads our output may have stalled.
    """
    os._exit(code)


@contextmanager
def watchdog(deadline: Deadline, last_act: Callable[[], int]) -> Iterator[None]:
    """A thread that ends the process at the budget's end, while the block runs.

    It calls `last_act` there and ends the process with its code. It does not depend on the main thread, which may hang in a
    library or on a disk. `last_act` must be short and wait for nothing: it ends the jobs; the file needs nothing, since every
    write replaced it whole.
    """
    finished = threading.Event()

    def watch() -> None:
        while (left := deadline.watchdog_at - deadline.now()) > 0:
            if finished.wait(min(left, LOOK_SECONDS)):
                return
        if finished.is_set():
            return
        code = 1
        with suppress(BaseException):
            code = last_act()
        end_process(code)

    threading.Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield
    finally:
        finished.set()


class StopRequest:
    """Whether someone asked this process to stop.

    By SIGTERM (a scheduler), SIGINT (Ctrl-C) or SIGHUP (the terminal is gone).
    """

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGHUP instead of dying, while the block runs.

    Whoever is writing finishes writing. What is ignored stays ignored, as SIGHUP under `nohup`.
    """
    request = StopRequest()

    def note(signum: int, _: object) -> None:
        request.signal_name = signal.Signals(signum).name

    if threading.current_thread() is not threading.main_thread():  # Python lets only the main thread handle signals
        yield request
        return
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in heard}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
