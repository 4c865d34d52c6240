"""The supervisor of all replicas: one engine process a GPU, restarted when dead or hung.

A replica may also take a group of GPUs. Each is started and spoken to by an `engine_handle`. Chunks go to whichever replica has
room, so that replicas of different speed end together; each has the next chunk waiting while it computes one. A replica that
ends or falls silent gives its chunks back and is started again, at most `RESTARTS` times in a row without a chunk between them,
and all of them together `RUN_RESTARTS` times. One that says why it cannot load is not tried again, unless it could before, and
then once, or the job knows of another way to start it (`second_start`). What is done about a chunk that ends engines is in
`tasks`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.stages.score.chunks import Answer, Chunk
from zoo.stages.score.engine_handle import Replica
from zoo.stages.score.second_start import SILENCE, SecondStart, cause_of
from zoo.stages.score.tasks import BLAMED, Task, Tasks, crashed_row
from zoo.store import write_atomic
from zoo.targets import process_age_seconds

RESTARTS = 2
# Over a run, or the part of it since it was resumed. A bad row costs three, a battle that is bad in both orders four; an engine
# that fails on every chunk and scores its rows one by one would else reload twice a chunk, for days.
RUN_RESTARTS = 24
COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # else torch compiles into the temporary folder, anew each time
QUEUE = 2  # chunks a replica holds: the one it computes and the next


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
    """What every replica is started with.

    `places`: the environment of each, CUDA_VISIBLE_DEVICES among it.
    """

    arguments: Mapping[str, Any]
    label_ids: tuple[int, int, int]
    folder: Path  # for the token file, the spans and the job itself
    places: tuple[Mapping[str, str], ...]
    model_bytes: int = 0
    second_starts: tuple[SecondStart, ...] = ()

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.bin"

    @property
    def spans(self) -> Path:
        return self.folder / "spans.npy"

    def changed(self, other: SecondStart) -> Job:
        """The same job with another way to start its engines, which is not tried again.

        The environment that belongs to it is the replicas' own.
        """
        return replace(
            self,
            arguments={**self.arguments, **other.arguments},
            second_starts=tuple(start for start in self.second_starts if start is not other),
        )

    def write(self) -> Path:
        """The file that replicas read as they start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "job.json"
        data = {"arguments": dict(self.arguments), "label_ids": self.label_ids, "tokens": self.tokens, "spans": self.spans}
        write_atomic(path, json.dumps(data, default=str))
        return path


@dataclass
class Listener:
    """What the caller wants to hear.

    `take` gets each finished chunk, with the memory its engine has used by then; `ready` each replica's number as it has
    loaded, the seconds from the start of its process to a first answered row, and its memory.
    """

    take: Callable[[int, Answer, Mapping[str, int]], None]
    step: Callable[[int, int], None] = lambda rows, tokens: None
    note: Callable[[str], None] = lambda text: None
    ready: Callable[[int, float, Mapping[str, int]], None] = lambda number, seconds, memory: None


def compiled_folder() -> Path:
    """Folder in which torch keeps what it has compiled, so that nothing is compiled twice.

    The name is torch's own. Everybody can make it, and its files are code: ZooError where the folder is a link or somebody
    else's.
    """
    folder = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ZooError(f"{folder}: not a folder of your own; remove it, or set {COMPILED} to one that is")
    return folder


class Crew:
    """The replicas of a run. Use as a context: whatever happens within, no engine outlives it.

    `lead_seconds`: age of this process when its engines were started.
    """

    def __init__(self, job: Job, patience: Patience | None = None) -> None:
        self._job, self._patience = job, patience or Patience()
        self._replicas = [Replica(number, place) for number, place in enumerate(job.places)]
        self._selector = selectors.DefaultSelector()
        self._started: dict[int, Job] = {}  # by replica: what it was last started with
        self._done_tokens, self._done_seconds = 0, 0.0
        self.restarts, self.lead_seconds = 0, 0.0

    def __enter__(self) -> Crew:
        self._path = self._job.write()
        # vLLM leaves files in the temporary folder. Not in the job's: sockets' paths are at most 107 characters long.
        self._temporary = tempfile.TemporaryDirectory(prefix="zoo-", ignore_cleanup_errors=True)
        kept = {COMPILED: os.environ.get(COMPILED) or str(compiled_folder())}
        for replica in self._replicas:
            replica.environment = {**kept, "TMPDIR": self._temporary.name, **replica.environment}
        self.lead_seconds = process_age_seconds()
        for replica in self._replicas:
            self._start(replica)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for replica in self._replicas:
            if kind is None:
                replica.leave()
            else:
                replica.kill()
        self._selector.close()
        self._temporary.cleanup()

    def score(self, chunks: Sequence[Chunk], listener: Listener) -> None:
        """Have every chunk scored; the token file must be there.

        EngineError where no replica is left to do it.
        """
        self._tasks = Tasks(chunks)
        np.save(self._job.spans, self._tasks.spans)
        while self._tasks or any(replica.held for replica in self._replicas):
            for key, _ in self._selector.select(timeout=0.25):
                self._hear(key.data, listener)
            for replica in list(self._replicas):
                self._examine(replica, listener)
            for replica in self._replicas:  # each turn: what a failed one gave back is for those that are idle and say nothing
                self._feed(replica)

    def _start(self, replica: Replica) -> None:
        replica.start(self._path)
        self._started[replica.number] = self._job
        self._selector.register(replica.channel, selectors.EVENT_READ, replica)

    def _feed(self, replica: Replica) -> None:
        while replica.ready and self._tasks and len(replica.held) < QUEUE:
            replica.give(self._tasks.take())

    def _hear(self, replica: Replica, listener: Listener) -> None:
        for message in replica.read():
            match message["kind"]:
                case "ready":
                    replica.ready, replica.memory = True, message["memory"]
                    replica.loaded, replica.reloads = True, 0
                    listener.ready(replica.number, message["seconds"], replica.memory)
                case "step":
                    listener.step(message["rows"], message["tokens"])
                case "error":
                    replica.said = message["message"]
                case "chunk":
                    self._finish(replica, message, listener)

    def _finish(self, replica: Replica, message: dict[str, Any], listener: Listener) -> None:
        task = replica.held.popleft()  # they are answered in the order given
        replica.failures, replica.memory = 0, message["memory"]
        self._done_tokens += task.tokens
        self._done_seconds += message["seconds"]
        answer = Answer(
            np.array(message["logits"], dtype=np.float64).reshape(-1, 3),
            np.array(message["cached"], dtype=np.int64),
            {int(row): reason for row, reason in message["refused"].items()},
            message["seconds"],
        )
        self._take(replica, task, answer, listener)

    def _take(self, replica: Replica, task: Task, answer: Answer, listener: Listener) -> None:
        whole = self._tasks.finish(task, answer)
        if whole is not None:
            listener.take(task.chunk, whole, replica.memory)

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
            why = f"{SILENCE} for {silent:.0f} s"
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
        return max(p.floor_seconds, p.factor * replica.held[0].tokens / speed)

    def _replace(self, replica: Replica, why: str, listener: Listener) -> None:
        """Take back a failed replica's tasks and start it again, or go on without it."""
        self._selector.unregister(replica.channel)
        if not replica.loaded and (told := self._other_way(replica, why)) and replica.kill():
            self.restarts += 1
            listener.note(f"engine {replica.number}: {why}; {told}")
            self._start(replica)
            return
        reload = not replica.ready and bool(replica.said)
        if reload and (not replica.loaded or replica.reloads):  # it could not load, and would fail again for the same reason
            raise EngineError(why)
        gone = replica.kill()
        if reload:  # it could before: perhaps memory of the previous engine was not freed yet
            replica.reloads += 1
        else:
            replica.failures += 1
        self._take_back(replica, why, listener)
        if gone and replica.failures <= RESTARTS:
            if self.restarts >= RUN_RESTARTS:
                raise EngineError(
                    f"engines were started again {self.restarts} times, and that is the most in a run, last: {why}"
                )
            self.restarts += 1
            listener.note(f"engine {replica.number}: {why}; started again")
            self._start(replica)
            return
        why = why if gone else f"{why}, and SIGKILL does not end it"
        self._replicas.remove(replica)
        if not self._replicas:
            raise EngineError(f"the engine failed {replica.failures} times in a row, last: {why}")
        listener.note(f"engine {replica.number}: {why}; going on without it")

    def _other_way(self, replica: Replica, why: str) -> str:
        """Change the job to another way of starting a replica that never loaded; what is told, empty where there is none.

        What another replica's failure has changed since this one started is such a way, too.
        """
        if self._started[replica.number] is not self._job:
            return "started again as the others"
        cause = cause_of(why)
        other = next((start for start in self._job.second_starts if start.cause == cause), None)
        if other is None:
            return ""
        self._job = self._job.changed(other)
        self._path = self._job.write()
        for one in self._replicas:
            one.environment = {**one.environment, **other.environment}
        return other.told

    def _take_back(self, replica: Replica, why: str, listener: Listener) -> None:
        """Return its tasks to the queue; what it was computing may be the cause of the failure."""
        held = list(replica.held)
        replica.held.clear()
        if held and may_be_its_rows(why):
            task = held.pop(0)
            if task.alone:
                self._take(replica, task, crashed_row(why), listener)
            else:
                suspects = self._tasks.split_blamed(task)
                if suspects[0].alone:  # its rows get a count of their own, else the first row would reach the limit for all
                    replica.failures = 0
                    listener.note(f"chunk {task.chunk} has ended {BLAMED} engines: its rows are scored one by one")
                held = [*suspects, *held]
        self._tasks.give_back(held)


def may_be_its_rows(why: str) -> bool:
    """Whether an engine's end can lie in what it computed.

    Memory that is too small, or a signal from outside, does not.
    """
    return not any(word in why for word in ("MemoryError", "out of memory", "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"))
