"""The work of scoring, as engines are given it: chunks, each in its place.

Each replica has the next chunk waiting while it computes one. What is done about a chunk that ends engines is in `tasks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.stages.score.chunks import Answer, Chunk
from zoo.stages.score.engine_handle import Replica
from zoo.stages.score.tasks import BLAMED, Task, Tasks, crashed_row, may_be_its_rows

May = Callable[[int], bool | None]  # of a chunk's number: True: score it, False: another does, None: it is done
LOOK_SECONDS = 2.0  # between two looks at what others have claimed
QUEUE = 2  # chunks a replica holds: the one it computes and the next


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


class ScoreWork:
    """Chunks to be scored; `spans` (rows, 2) is where each row of them lies in the token file."""

    def __init__(self, chunks: Sequence[Chunk], listener: Listener, patience: Patience, may: May | None = None) -> None:
        self._tasks, self._listener, self._patience = Tasks(chunks), listener, patience
        self._may, self._theirs, self._next_look = may, list[Task](), 0.0
        self._done_tokens, self._done_seconds = 0, 0.0

    @property
    def spans(self) -> np.ndarray:
        spans: np.ndarray = self._tasks.spans
        return spans

    def pending(self) -> bool:
        """Also while others are at chunks of this run: they may fall silent, and then these come back."""
        if self._theirs and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self._tasks.append(self._theirs)
            self._theirs = []
            self._sift()
        return bool(self._tasks) or bool(self._theirs)

    def _sift(self) -> None:
        """Put those at the head of the queue aside that are not to be scored here, or are done."""
        while self._may is not None and self._tasks and (head := self._tasks.head) and not head.alone:
            if may := self._may(head.chunk):
                return
            task = self._tasks.take()
            if may is False:
                self._theirs.append(task)

    def note(self, text: str) -> None:
        self._listener.note(text)

    def ready(self, number: int, seconds: float, memory: Mapping[str, int]) -> None:
        self._listener.ready(number, seconds, memory)

    def feed(self, replica: Replica) -> None:
        while len(replica.held) < QUEUE:
            self._sift()
            if not self._tasks:
                return
            task = self._tasks.take()
            replica.give(task, {"chunk": task.chunk, "first": task.first, "last": task.last})

    def hear(self, replica: Replica, message: dict[str, Any]) -> None:
        if message["kind"] == "step":
            self._listener.step(message["rows"], message["tokens"])
        else:
            self._finish(replica, message)

    def seconds(self, replica: Replica) -> float:
        """What the chunk it computes may take."""
        p = self._patience
        speed = self._done_tokens / self._done_seconds if self._done_seconds > 0 else p.slowest_tokens_per_second
        task: Task = replica.held[0]
        return max(p.floor_seconds, p.factor * task.tokens / speed)

    def take_back(self, replica: Replica, why: str) -> None:
        """Return its tasks to the queue; what it was computing may be the cause of the failure."""
        held = list(replica.held)
        replica.held.clear()
        if held and may_be_its_rows(why):
            task = held.pop(0)
            if task.alone:
                self._take(replica, task, crashed_row(why))
            else:
                suspects = self._tasks.split_blamed(task)
                if suspects[0].alone:  # its rows get a count of their own, else the first row would reach the limit for all
                    replica.failures = 0
                    self.note(f"chunk {task.chunk} has ended {BLAMED} engines: its rows are scored one by one")
                held = [*suspects, *held]
        self._tasks.give_back(held)

    def _finish(self, replica: Replica, message: dict[str, Any]) -> None:
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
        self._take(replica, task, answer)

    def _take(self, replica: Replica, task: Task, answer: Answer) -> None:
        whole = self._tasks.finish(task, answer)
        if whole is not None:
            self._listener.take(task.chunk, whole, replica.memory)
