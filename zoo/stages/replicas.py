"""The engines of a scoring run, watched over: one process a GPU (or a group of them), restarted when dead or hung.

Chunks go to whichever replica has room, so that replicas of different speed end together; each has the next chunk waiting while
it computes one. A replica that ends or falls silent gives its chunks back and is started again, at most `RESTARTS` times in a
row without a chunk between them.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from zoo.stages.chunks import Answer, Chunk
from zoo.stages.replica import PARENT

RESTARTS = 2
QUEUE = 2  # chunks a replica holds: the one it computes and the next
GOODBYE_SECONDS = 20.0


class EngineError(RuntimeError):
    """An engine could not be started, or ended again and again."""


@dataclass(frozen=True)
class Patience:
    """How long an engine may be silent before it counts as hung.

    Loading: `loading_seconds`, and the time to read the model from a slow disk. Scoring: `factor` times what the chunk should
    take at the speed seen so far, never under `floor_seconds`; before a chunk is done, at `slowest_tokens_per_second`.
    """

    loading_seconds: float = 900.0
    disk_bytes_per_second: float = 20e6
    factor: float = 10.0
    floor_seconds: float = 120.0
    slowest_tokens_per_second: float = 20.0


@dataclass(frozen=True)
class Job:
    """What every replica is started with. `places`: the environment of each, CUDA_VISIBLE_DEVICES among it."""

    arguments: Mapping[str, Any]
    label_ids: tuple[int, int, int]
    folder: Path  # for the token file, the spans and the job itself
    places: tuple[Mapping[str, str], ...]
    model_bytes: int = 0

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.bin"

    @property
    def spans(self) -> Path:
        return self.folder / "spans.npy"

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "job.json"
        data = {"arguments": dict(self.arguments), "label_ids": self.label_ids, "tokens": self.tokens, "spans": self.spans}
        path.write_text(json.dumps(data, default=str))
        return path


@dataclass
class Listener:
    """What the caller wants to hear. `take` gets each finished chunk, with the memory its engine has used by then."""

    take: Callable[[int, Answer, Mapping[str, int]], None]
    step: Callable[[int, int], None] = lambda rows, tokens: None
    note: Callable[[str], None] = lambda text: None
    ready: Callable[[Mapping[str, int]], None] = lambda memory: None


@dataclass
class Replica:
    """One engine's process, the chunks it holds, and when it was last heard of."""

    number: int
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    channel: int = -1
    ready: bool = False
    heard: float = 0.0
    failures: int = 0  # since it last finished a chunk
    held: deque[int] = field(default_factory=deque)
    said: str = ""  # the last error it reported
    _buffer: bytes = b""

    def start(self, job: Path) -> None:
        """Launch the process; it loads its engine and then says that it is ready."""
        self.channel, write_end = os.pipe()
        command = [sys.executable, "-m", "zoo.stages.replica", str(job), str(write_end)]
        environment = {**os.environ, **self.environment, PARENT: str(os.getpid())}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_end,), env=environment)
        os.close(write_end)
        self.ready, self.heard, self.said, self._buffer = False, time.monotonic(), "", b""

    def send(self, command: Mapping[str, int]) -> None:
        assert self.process is not None and self.process.stdin is not None
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

    def kill(self) -> None:
        """End the process and all it has started, at once: a stopped or hung process takes no other signal."""
        if self.process is None:
            return
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._close()

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


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and theirs, by Linux's process table; none where there is none."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in file.read_text().split():
                found += [*descendants(int(child)), int(child)]
    return found


class Crew:
    """The replicas of a run. Use as a context: whatever happens within, no engine outlives it."""

    def __init__(self, job: Job, patience: Patience | None = None) -> None:
        self._job, self._patience = job, patience or Patience()
        self._replicas = [Replica(number, place) for number, place in enumerate(job.places)]
        self._selector = selectors.DefaultSelector()
        self._todo: deque[int] = deque()
        self._tokens: list[int] = []
        self._done_tokens, self._done_seconds = 0, 0.0
        self.restarts = 0

    def __enter__(self) -> Crew:
        path = self._job.write()
        for replica in self._replicas:
            self._start(replica, path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for replica in self._replicas:
            if kind is None:
                replica.leave()
            else:
                replica.kill()
        self._selector.close()

    def score(self, chunks: Sequence[Chunk], listener: Listener) -> None:
        """Have every chunk scored; the token file must be there. EngineError where no replica is left to do it."""
        spans = [chunk.spans for chunk in chunks]
        np.save(self._job.spans, np.concatenate(spans))
        ends = np.cumsum([len(span) for span in spans])
        self._first, self._last = (ends - [len(span) for span in spans]).tolist(), ends.tolist()
        self._tokens = [chunk.tokens for chunk in chunks]
        self._todo = deque(range(len(chunks)))
        for replica in self._replicas:  # it may have become ready while rows were tokenized
            self._feed(replica)
        while self._todo or any(replica.held for replica in self._replicas):
            for key, _ in self._selector.select(timeout=0.25):
                self._hear(key.data, listener)
            for replica in list(self._replicas):
                self._examine(replica, listener)

    def _start(self, replica: Replica, job: Path) -> None:
        replica.start(job)
        self._selector.register(replica.channel, selectors.EVENT_READ, replica)

    def _feed(self, replica: Replica) -> None:
        while replica.ready and self._todo and len(replica.held) < QUEUE:
            chunk = self._todo.popleft()
            replica.held.append(chunk)
            replica.send({"chunk": chunk, "first": self._first[chunk], "last": self._last[chunk]})

    def _hear(self, replica: Replica, listener: Listener) -> None:
        for message in replica.read():
            match message["kind"]:
                case "ready":
                    replica.ready = True
                    listener.ready(message["memory"])
                case "step":
                    listener.step(message["rows"], message["tokens"])
                case "error":
                    replica.said = message["message"]
                case "chunk":
                    self._finish(replica, message, listener)
        self._feed(replica)

    def _finish(self, replica: Replica, message: dict[str, Any], listener: Listener) -> None:
        chunk = message["chunk"]
        replica.held.remove(chunk)
        replica.failures = 0
        self._done_tokens += self._tokens[chunk]
        self._done_seconds += message["seconds"]
        answer = Answer(
            np.array(message["logits"], dtype=np.float64).reshape(-1, 3),
            np.array(message["cached"], dtype=np.int64),
            {int(row): reason for row, reason in message["refused"].items()},
            message["seconds"],
        )
        listener.take(chunk, answer, message["memory"])

    def _examine(self, replica: Replica, listener: Listener) -> None:
        """Notice a replica that has ended, said that it cannot go on, or fallen silent."""
        assert replica.process is not None
        code = replica.process.poll()
        silent = time.monotonic() - replica.heard
        if code is None and not replica.said and silent <= self._limit(replica):
            return
        if code is not None:
            self._hear_last_words(replica, listener)
        if replica.said:
            why = replica.said
        elif code is None:
            why = f"nothing heard for {silent:.0f} s"
        else:
            why = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._replace(replica, why, listener)

    def _hear_last_words(self, replica: Replica, listener: Listener) -> None:
        """What it wrote before it ended is in the pipe still."""
        while self._selector.get_map() and any(key.data is replica for key, _ in self._selector.select(timeout=0)):
            before = replica.heard
            self._hear(replica, listener)
            if replica.heard == before:  # end of file
                return

    def _limit(self, replica: Replica) -> float:
        """Seconds of silence that are too many."""
        p = self._patience
        if not replica.ready:
            return p.loading_seconds + self._job.model_bytes / p.disk_bytes_per_second
        if not replica.held:
            return float("inf")
        speed = self._done_tokens / self._done_seconds if self._done_seconds > 0 else p.slowest_tokens_per_second
        return max(p.floor_seconds, p.factor * self._tokens[replica.held[0]] / speed)

    def _replace(self, replica: Replica, why: str, listener: Listener) -> None:
        """Take back a failed replica's chunks and start it again, or go on without it."""
        self._selector.unregister(replica.channel)
        if not replica.ready and replica.said:  # it could not load, and said why: it would say so again
            raise EngineError(why)
        replica.kill()
        self._todo.extendleft(reversed(replica.held))
        replica.held.clear()
        replica.failures += 1
        if replica.failures <= RESTARTS:
            self.restarts += 1
            listener.note(f"engine {replica.number}: {why}; started again ({replica.failures} of {RESTARTS})")
            self._start(replica, self._job.write())
            return
        self._replicas.remove(replica)
        if not self._replicas:
            raise EngineError(f"the engine failed {replica.failures} times in a row, last: {why}")
        listener.note(f"engine {replica.number}: {why}; going on without it")
