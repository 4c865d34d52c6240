"""Child processes that are heard in the notebook and the log, and end when their time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

OUT_OF_TIME = 124  # exit code of a child that was ended for that, as of `timeout` (GNU coreutils)
KILL_SECONDS = 15.0  # between SIGTERM and SIGKILL
LAST_BYTES = 4096


def run_told(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> tuple[int, str]:
    """Run a command, at most so many seconds; its exit code and the last line that it printed.

    What it prints goes on to this process's own output and to the end of `log`, whose disk may be full. SIGTERM, SIGINT and
    SIGHUP of this process are handed to it.
    """
    tail = bytearray()
    with _handed_on() as hand_to:
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return 127, f"{command[0]}: {error.strerror or error}"
        hand_to(process)
        assert process.stdout is not None
        reader = threading.Thread(target=_copy, args=(process.stdout, log, tail), daemon=True)
        reader.start()
        code = _wait(process, seconds)
    _signal(process, signal.SIGKILL)  # what it left behind in its group
    reader.join(timeout=5)  # a process that escaped from the group may hold the pipe open
    lines = [line for line in tail.decode("utf-8", "replace").replace("\r", "\n").splitlines() if line.strip()]
    return code, lines[-1].strip() if lines else "no message"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()
    return OUT_OF_TIME


def _copy(stream: IO[bytes], log: Path, tail: bytearray) -> None:
    file: IO[bytes] | None = None
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab", buffering=0)
    while data := os.read(stream.fileno(), 1 << 16):
        tail += data
        del tail[:-LAST_BYTES]
        with suppress(OSError, ValueError):
            sys.stdout.write(data.decode("utf-8", "replace"))
            sys.stdout.flush()
        if file is not None:
            with suppress(OSError):
                file.write(data)
    if file is not None:
        file.close()


@contextmanager
def _handed_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Within the block, signals that ask this process to end go to the child that is named, also those that came before."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def hand_on(number: int, _: object) -> None:
        for child in children:
            _signal(child, signal.Signals(number))
        early.extend([] if children else [number])

    def hand_to(process: subprocess.Popen[bytes]) -> None:
        children.append(process)
        for number in early:
            _signal(process, signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield hand_to
        return
    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield hand_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
