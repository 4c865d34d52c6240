"""The conversations of a run, as engines are given them, and the files of answers.

An engine holds as many conversations as keep it busy, those of most turns first. Where one of them ends it, nobody knows which:
those that it held come again in ever smaller company, until one ends an engine by itself, and that one is recorded with the
reason.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.models.chat import Chat
from zoo.stages.generate.answers import Answer, Book, context_of, write_answers
from zoo.stages.generate.ceilings import Reach, is_usable
from zoo.stages.generate.rows import status_of
from zoo.stages.score.engine_handle import Replica
from zoo.stages.score.tally import Tally
from zoo.stages.score.tasks import may_be_its_rows

CPU_AHEAD = 48  # the same on processors (CPU_SEQUENCES): what is ahead there would begin hours after it was given
AHEAD = 1536  # conversations that an engine holds: the most it computes together (1,024 on large cards), and half as many
NARROWING = 8  # by which the company of suspects shrinks with each engine that they end
SILENT_SECONDS = 600.0  # an engine tells each batch; on processors one of long prompts takes minutes
FLUSH_SECONDS = 30.0


@dataclass(eq=False)  # one is itself alone
class Conversation:
    """A prompt under one seed, and what is known of the answers to it."""

    row: int
    prompt: str
    turns: tuple[str, ...]
    seed: int
    answers: list[Answer] = field(default_factory=list)
    asked_ids: list[list[int]] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """All that was said before the next answer."""
        pairs = zip(self.turns, [answer.text for answer in self.answers], strict=False)
        return [*(text for pair in pairs for text in pair), self.turns[len(self.answers)]]

    def command(self) -> dict[str, Any]:
        """What an engine is told of it."""
        answered = [list(answer.ids) for answer in self.answers]
        seeds = [token_seed(self.turns[: turn + 1], self.seed) for turn in range(len(self.turns))]
        return {"row": self.row, "asked": self.asked_ids, "answered": answered, "seeds": seeds}


def token_seed(asked: Sequence[str], seed: int) -> int:
    """What an answer's tokens are drawn by: of the seed and of what was asked so far.

    The seed alone would have every prompt answered by the same draws.
    """
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *asked]).encode()).digest()[:4]) >> 1


class ChunkWriter:
    """Answers to files of so many, or of what half a minute brought.

    What a killed run loses is not more, beside what its engines were at.
    """

    def __init__(self, folder: Path, most: int, tally: Tally) -> None:
        self._folder, self._most, self._tally = folder, most, tally
        self._held: list[Answer] = []
        self._since = time.monotonic()
        self._next = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.parquet")), default=-1)

    def add(self, answer: Answer) -> None:
        self._held.append(answer)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        if len(self._held) >= self._most or time.monotonic() - self._since > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """The tally first: a file without its seconds would make the run look faster than it was."""
        self._since = time.monotonic()
        if self._held:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._tally.save(self._folder)
            write_answers(self._held, self._folder / f"{self._next:06d}.parquet")
            self._held, self._next = [], self._next + 1


class GenerateWork:
    """Conversations to be held (`zoo.stages.score.engines.Work`).

    `failed`: row -> why a conversation ended before its last answer. `clock` is told that engines answered, for the tally.
    """

    def __init__(
        self,
        todo: Sequence[Conversation],
        chat: Chat,
        book: Book,
        writer: ChunkWriter,
        *,
        made_by: tuple[str, str],
        replicas: int,
        note: Callable[[str], None],
        ready: Callable[[int, float, Mapping[str, int]], None],
        heard: Callable[[int, int], None],
        tally: Tally,
        ahead: int = AHEAD,
        reach: Reach | None = None,
    ) -> None:
        self._reach, self._ahead = reach or Reach(), ahead
        self._todo = deque(self._ordered(todo))
        self._by_row = {one.row: one for one in todo}
        self._chat, self._book, self._writer, self._made_by = chat, book, writer, made_by
        self._replicas, self._note, self._ready, self._heard, self._tally = replicas, note, ready, heard, tally
        self._suspects: set[int] = set()
        self._company, self._held = ahead, 0
        self.failed: dict[int, str] = {}

    def _ordered(self, some: Iterable[Conversation]) -> list[Conversation]:
        """Those of most turns first, which keeps engines busy to the end; by row where a ceiling may end the run before."""
        return sorted(some, key=lambda one: one.row if self._reach.in_order else -len(one.turns))

    def pending(self) -> bool:
        return bool(self._todo) and self._reach.may_begin(self._todo[0].row)

    def note(self, text: str) -> None:
        self._note(text)

    def ready(self, number: int, seconds: float, memory: Mapping[str, int]) -> None:
        self._ready(number, seconds, memory)

    def seconds(self, replica: Replica) -> float:
        return SILENT_SECONDS

    def feed(self, replica: Replica) -> None:
        """Give a replica what it has room for.

        That is what keeps it busy, and no more than its share of what is left, so that all end together.
        """
        share = -(-(len(self._todo) + self._held) // self._replicas)
        room = self._company if self._suspects else min(self._ahead, share)
        while len(replica.held) < room and self.pending():
            one = self._todo.popleft()
            self._reach.begin(one.row)
            one.asked_ids = one.asked_ids or self._chat.encode(one.turns)
            replica.give(one, one.command())
            self._held += 1

    def hear(self, replica: Replica, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "answer":
                self._answer(replica, message)
            case "end":
                self._end(replica, self._by_row[message["row"]], message["why"])
            case "step":
                replica.memory = message["memory"]
                self._tally.see_memory(replica.memory)
                self._writer.flush_if_due()

    def take_back(self, replica: Replica, why: str) -> None:
        held: list[Conversation] = list(replica.held)
        replica.held.clear()
        for one in held:
            self._reach.take_back(one.row)
        self._held -= len(held)
        if held and may_be_its_rows(why):
            if len(held) == 1:
                self.failed[held[0].row] = f"crashed: the engine ended on it ({why})"[:200]
                self._clear(held.pop())
            else:
                self._suspects |= {one.row for one in held}
                self._company = max(1, len(held) // NARROWING)
                self._note(f"one of {len(held):,} conversations may have ended the engine: {self._company:,} at a time")
            replica.failures = 0
        self._todo.extendleft(reversed(held))
        if self._reach.in_order:
            self._todo = deque(self._ordered(self._todo))

    def _answer(self, replica: Replica, message: dict[str, Any]) -> None:
        one = self._by_row[message["row"]]
        replica.failures = 0
        answer = Answer(
            context=context_of(one.said),
            seed=one.seed,
            prompt=one.prompt,
            turn=len(one.answers),
            text=self._chat.decode([message["ids"]])[0],
            ids=tuple(message["ids"]),
            stop=message["stop"],
            prompt_tokens=message["prompt_tokens"],
            cached_tokens=message["cached"],
            engine=self._made_by[0],
            machine=self._made_by[1],
        )
        one.answers.append(answer)
        self._book.add([answer], own=True)
        self._tally.tokens += answer.prompt_tokens
        self._tally.cached_tokens += answer.cached_tokens
        self._heard(1, len(answer.ids))
        self._writer.add(answer)

    def _end(self, replica: Replica, one: Conversation, why: str) -> None:
        replica.held.remove(one)
        self._held -= 1
        if why:
            self.failed[one.row] = why
        self._reach.end(one.row, usable=is_usable(why or status_of(one.answers)))
        self._clear(one)

    def _clear(self, one: Conversation) -> None:
        """It is no suspect any more; when the last is cleared, engines are given as much as ever."""
        self._suspects.discard(one.row)
        if not self._suspects:
            self._company = self._ahead
