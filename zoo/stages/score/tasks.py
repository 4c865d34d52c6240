"""Tasks for the engines: chunks, and single rows of a chunk that crashed engines.

A row can crash an engine that does not refuse it. Scored in its chunk it would take down one engine after another and then the
run; so the rows of a chunk that ended `BLAMED` engines are scored one by one, and the row that ends an engine by itself is
recorded with the reason.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.stages.score.chunks import Answer, Chunk, join_answers

GONE = "has gone"  # ends what is said of a host that took its engine with it
BLAMED = 2  # engines that a chunk may end before its rows are scored one by one


@dataclass(frozen=True)
class Task:
    """Rows `first` to `last` of the span file, of one chunk.

    `alone`: one row of a chunk that ended engines.
    """

    chunk: int
    first: int
    last: int
    tokens: int
    alone: bool = False


class Tasks:
    """The tasks of a run that no engine holds.

    It also holds the answers to chunks that are scored row by row.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.spans = np.concatenate([chunk.spans for chunk in chunks])
        ends = np.cumsum([len(chunk.spans) for chunk in chunks]).tolist()
        self._ranges = list(zip([0, *ends[:-1]], ends, strict=True))
        self._todo = deque(
            Task(number, first, last, chunks[number].tokens) for number, (first, last) in enumerate(self._ranges)
        )
        self._ended: Counter[int] = Counter()
        self._rows: dict[int, dict[int, Answer]] = {}  # chunk -> row of the span file -> its answer

    def __bool__(self) -> bool:
        return bool(self._todo)

    def take(self) -> Task:
        return self._todo.popleft()

    @property
    def head(self) -> Task:
        return self._todo[0]

    def append(self, tasks: Iterable[Task]) -> None:
        self._todo.extend(tasks)

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Tasks that an engine did not finish come next."""
        self._todo.extendleft(reversed(list(tasks)))

    def split_blamed(self, task: Task) -> list[Task]:
        """What to score in place of a chunk that an engine crashed on.

        Itself, or its rows one by one.
        """
        self._ended[task.chunk] += 1
        if self._ended[task.chunk] < BLAMED:
            return [task]
        self._rows[task.chunk] = {}
        rows = range(task.first, task.last)
        return [Task(task.chunk, row, row + 1, int(np.diff(self.spans[row])[0]), alone=True) for row in rows]

    def finish(self, task: Task, answer: Answer) -> Answer | None:
        """The answer to the task's whole chunk, once that is complete."""
        if not task.alone:
            return answer
        rows = self._rows[task.chunk]
        rows[task.first] = answer
        first, last = self._ranges[task.chunk]
        return join_answers([rows[row] for row in range(first, last)]) if len(rows) == last - first else None


def crashed_row(why: str) -> Answer:
    """The answer to a row that ended its engine."""
    return Answer(np.full((1, 3), np.nan), np.zeros(1, dtype=np.int64), {0: f"the engine crashed on it ({why})"[:200]}, 0.0)


def may_be_its_rows(why: str) -> bool:
    """Whether an engine's end can lie in what it computed.

    Memory that is too small, a signal from outside, or a host that has gone, does not.
    """
    return not any(word in why for word in (GONE, "MemoryError", "out of memory", "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"))
