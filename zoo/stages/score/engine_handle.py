"""The handle of one engine process: starts it, speaks to it, and ends it with its children.

What runs inside that process is in `engine_process`; `engines` supervises the handles of all replicas.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from zoo.stages.score.engine_process import PARENT

COMMAND = (sys.executable, "-m", "zoo.stages.score.engine_process")  # the job's file and the answers' file descriptor follow
GOODBYE_SECONDS = 20.0
MARK = "ZOO_REPLICA"  # in the environment of all that a replica starts, so that they are found when it has ended
UNTITLED = {"SPT_NOENV": "1"}  # vLLM's workers set their titles, which else overwrites the environment that /proc shows
KILL_SECONDS = 30.0  # a process in an uninterruptible system call, of a GPU's driver say, outlives SIGKILL


@dataclass
class Replica:
    """The handle of one engine process: what it holds, and when it was last heard of.

    `command` starts it, the one that scores where there is none.
    """

    number: int
    environment: Mapping[str, str]
    command: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    channel: int = -1
    ready: bool = False
    heard: float = 0.0
    failures: int = 0  # since it last finished something
    loaded: bool = False  # once at least, in this run
    reloads: int = 0  # that failed since it was last ready
    held: deque[Any] = field(default_factory=deque)
    said: str = ""  # the last error it reported
    memory: Mapping[str, int] = field(default_factory=dict)
    _buffer: bytes = b""
    _mark: str = ""

    def start(self, job: Path) -> None:
        """Launch the process; it loads its engine and then says that it is ready."""
        self.channel, write_end = os.pipe()
        self._mark = secrets.token_hex(8)
        environment = {**os.environ, **self.environment, **UNTITLED, PARENT: str(os.getpid()), MARK: self._mark}
        command = [*(self.command or COMMAND), str(job), str(write_end)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_end,), env=environment)
        os.close(write_end)
        self.ready, self.heard, self.said, self._buffer = False, time.monotonic(), "", b""

    def give(self, task: Any, command: Mapping[str, Any]) -> None:
        """Hand a task over, by the command that says it.

        An idle replica's silence counts from here: it had nothing to report before.
        """
        assert self.process is not None and self.process.stdin is not None
        if not self.held:
            self.heard = time.monotonic()
        self.held.append(task)
        with suppress(BrokenPipeError):  # it has ended, which is noticed elsewhere
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> list[dict[str, Any]]:
        """Messages that have arrived."""
        data = os.read(self.channel, 1 << 20)
        if data:
            self.heard = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> bool:
        """End the process and all it has started, at once.

        A stopped or hung process takes no other signal. Of a process that ended by itself, what it left behind: a split
        engine's workers would hold their GPUs. They stay in the group of this process, which others end as a whole. False where
        one is there still after `KILL_SECONDS`.
        """
        if self.process is None:
            return True
        if self.process.poll() is None:  # else its number may be another process's by now
            end(descendants(self.process.pid))
            self.process.kill()
        deadline = time.monotonic() + KILL_SECONDS
        while (left := marked(self._mark)) or self.process.poll() is None:
            end(left)
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        gone = not left and self.process.poll() is not None
        self._close()
        return gone

    def leave(self) -> None:
        """Ask an idle process to end, and see that it does."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GOODBYE_SECONDS)
        self.kill()

    def _close(self) -> None:
        assert self.process is not None and self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self.channel)
        self.process = None


def end(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each that is still there.

    A number that by now is another process's is left alone.
    """
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def marked(mark: str) -> list[psutil.Process]:
    """Processes that were started with a replica's mark, wherever they hang by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def descendants(pid: int) -> list[psutil.Process]:
    """Processes that a process has started, and theirs; none where it has ended."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []
