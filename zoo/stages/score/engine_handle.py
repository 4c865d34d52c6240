"""The handle of one engine process: starts it on its fleet, speaks to it in messages, and ends it with its children.

What runs inside that process is in `engine_process`; `engines` supervises the handles of all replicas.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.pipeline.runners.fleet import Fleet, Here, Started

COMMAND = (sys.executable, "-m", "zoo.stages.score.engine_process")  # the job's file and the answers' file descriptor follow


@dataclass
class Replica:
    """The handle of one engine process: what it holds, and when it was last heard of.

    `command` starts it, the one that scores where there is none, on the fleet, this host where there is none.
    """

    number: int
    environment: Mapping[str, str]
    command: tuple[str, ...] = ()
    fleet: Fleet = field(default_factory=Here)
    process: Started | None = None
    ready: bool = False
    heard: float = 0.0
    begun: float = 0.0  # when its process was asked for
    told_waiting: bool = False
    failures: int = 0  # since it last finished something
    loaded: bool = False  # once at least, in this run
    reloads: int = 0  # that failed since it was last ready
    held: deque[Any] = field(default_factory=deque)
    said: str = ""  # the last error it reported
    memory: Mapping[str, int] = field(default_factory=dict)
    _buffer: bytes = b""

    @property
    def channel(self) -> int:
        """The descriptor that its messages are read from."""
        assert self.process is not None
        return self.process.channel

    def start(self, job: Path) -> None:
        """Launch the process; it loads its engine and then says that it is ready."""
        self.process = self.fleet.start(self.number, [*(self.command or COMMAND), str(job)], self.environment)
        self.begun = self.heard = time.monotonic()
        self.ready, self.told_waiting, self.said, self._buffer = False, False, "", b""

    def give(self, task: Any, command: Mapping[str, Any]) -> None:
        """Hand a task over, by the command that says it.

        An idle replica's silence counts from here: it had nothing to report before.
        """
        assert self.process is not None
        if not self.held:
            self.heard = time.monotonic()
        self.held.append(task)
        self.process.send(json.dumps(command).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """Messages that have arrived."""
        data = os.read(self.channel, 1 << 20)
        if data:
            self.heard = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> bool:
        """End the process and all it has started, at once; False where one of them is there still."""
        process, self.process = self.process, None
        return process is None or process.kill()

    def leave(self) -> None:
        """Ask an idle process to end, and see that it does."""
        process, self.process = self.process, None
        if process is not None:
            process.leave()
