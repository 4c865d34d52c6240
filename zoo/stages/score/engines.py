"""The supervisor of all replicas: one engine process a GPU, restarted when dead or hung.

A replica may also take a group of GPUs. Each is started and spoken to by an `engine_handle`. What they are to do is a `Work`:
for scoring that of `work`. It goes to whichever replica has room, so that replicas of different speed end together. A replica
that ends or falls silent gives its work back and is started again, at most `RESTARTS` times in a row with nothing finished
between them, and all of them together `RUN_RESTARTS` times. One that says why it cannot load is not tried again, unless it
could before, and then once, or the job knows of another way to start it (`second_start`).
"""

from __future__ import annotations

import json
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from zoo.pipeline.runners.fleet import Fleet, Here
from zoo.stages.score.chunks import Chunk
from zoo.stages.score.engine_handle import Replica
from zoo.stages.score.second_start import SILENCE, SecondStart, cause_of
from zoo.stages.score.tasks import GONE
from zoo.stages.score.work import Listener, May, Patience, ScoreWork
from zoo.store import write_atomic
from zoo.targets import process_age_seconds

TOKENS = "tokens.bin"
RESTARTS = 2
# Over a run, or the part of it since it was resumed. A bad row costs three, a battle that is bad in both orders four; an engine
# that fails on every chunk and scores its rows one by one would else reload twice a chunk, for days.
RUN_RESTARTS = 24
WAITING_SECONDS = 20.0  # before it is said that a host has no room yet
HOSTLESS_SECONDS = 600.0  # that a run waits for a host when all of them have gone: a cluster may bring others


class EngineError(RuntimeError):
    """An engine could not be started, or ended again and again."""


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
    shared: Path | None = None  # where the token file is, if not in the folder

    @property
    def tokens(self) -> Path:
        return (self.shared or self.folder) / TOKENS

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


class Work(Protocol):
    """What a run's engines are to do, and what becomes of their answers.

    `pending`: whether anything is left that no engine holds. `feed` gives a replica what it has room for; `hear` takes each
    message that is not of loading or of an error; `seconds` is how long it may be silent over what it holds; `take_back` gets
    what a replica held when it ended, and why it did. `note` and `ready` are told what people, and clocks, want to know.
    """

    def pending(self) -> bool: ...
    def feed(self, replica: Replica) -> None: ...
    def hear(self, replica: Replica, message: dict[str, Any]) -> None: ...
    def seconds(self, replica: Replica) -> float: ...
    def take_back(self, replica: Replica, why: str) -> None: ...
    def note(self, text: str) -> None: ...
    def ready(self, number: int, seconds: float, memory: Mapping[str, int]) -> None: ...


class Launch(Protocol):
    """What engines are started with.

    A file that each reads, the environment of each, and the size of their model.
    """

    @property
    def places(self) -> tuple[Mapping[str, str], ...]: ...
    @property
    def model_bytes(self) -> int: ...
    def write(self) -> Path: ...


class Crew:
    """The replicas of a run. Use as a context: whatever happens within, no engine outlives it.

    `lead_seconds`: age of this process when its engines were started.
    """

    def __init__(
        self, job: Launch, patience: Patience | None = None, command: tuple[str, ...] = (), fleet: Fleet | None = None
    ) -> None:
        """`command`: what starts an engine, where that is not the one that scores; `fleet`: where, if not on this host."""
        self._job, self._patience = job, patience or Patience()
        self._command, self._fleet = command, fleet or Here()
        self._replicas = [Replica(number, place, command, self._fleet) for number, place in enumerate(job.places)]
        self._next, self._alone_since = len(self._replicas), time.monotonic()
        self._common = dict(job.places[0]) if job.places else {}  # of hosts that come: their cards are dealt by the fleet
        self._selector = selectors.DefaultSelector()
        self._started: dict[int, Launch] = {}  # by replica: what it was last started with
        self.restarts, self.lead_seconds = 0, 0.0

    def __enter__(self) -> Crew:
        self._path = self._job.write()
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

    def score(self, chunks: Sequence[Chunk], listener: Listener, may: May | None = None) -> None:
        """Have every chunk scored; the token file must be there.

        `may`: which of them, where others score of the same run. EngineError where no replica is left to do it.
        """
        assert isinstance(self._job, Job)
        work = ScoreWork(chunks, listener, self._patience, may)
        np.save(self._job.spans, work.spans)
        self.run(work)

    def run(self, work: Work) -> None:
        """Have all of it done. EngineError where no replica is left to do it."""
        while work.pending() or any(replica.held for replica in self._replicas):
            self._welcome(work)
            for key, _ in self._selector.select(timeout=0.25):
                self._hear(key.data, work)
            for replica in list(self._replicas):
                self._examine(replica, work)
            for replica in self._replicas:  # each turn: what a failed one gave back is for those that are idle and say nothing
                if replica.ready:
                    work.feed(replica)

    def _welcome(self, work: Work) -> None:
        """Start a replica on each host that has come. EngineError where the last has gone and none comes."""
        for _ in range(self._fleet.joined(work.note)):
            replica = Replica(self._next, self._common, self._command, self._fleet)
            self._next += 1
            self._replicas.append(replica)
            self._start(replica)
            assert replica.process is not None
            work.note(f"engine {replica.number}: starts on {replica.process.host}, which has come")
        if self._replicas:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > HOSTLESS_SECONDS:
            raise EngineError(f"every host has gone, and none has come for {HOSTLESS_SECONDS:.0f} s")

    def _start(self, replica: Replica) -> None:
        replica.start(self._path)
        self._started[replica.number] = self._job
        self._selector.register(replica.channel, selectors.EVENT_READ, replica)

    def _hear(self, replica: Replica, work: Work) -> None:
        for message in replica.read():
            match message["kind"]:
                case "ready":
                    replica.ready, replica.memory = True, message["memory"]
                    replica.loaded, replica.reloads = True, 0
                    work.ready(replica.number, message["seconds"], replica.memory)
                case "error":
                    replica.said = message["message"]
                case _:
                    work.hear(replica, message)

    def _examine(self, replica: Replica, work: Work) -> None:
        """Notice a replica that has ended, said that it cannot go on, or fallen silent."""
        assert replica.process is not None
        if replica.process.waiting:
            self._wait_for_room(replica, work)
        code = replica.process.poll()
        silent = time.monotonic() - replica.heard
        if code is None and not replica.said and silent <= self._limit(replica, work):
            return
        if code is not None:
            self._hear_last_words(replica, work)
        if replica.process.lost:
            self._let_go(replica, work)
            return
        if replica.said:
            why = replica.said
        elif code is None:
            why = f"{SILENCE} for {silent:.0f} s"
        else:
            why = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._replace(replica, f"{replica.process.host}: {why}" if replica.process.host else why, work)

    def _wait_for_room(self, replica: Replica, work: Work) -> None:
        """Say it once of a replica whose host others have taken; it is not silent meanwhile."""
        assert replica.process is not None
        replica.heard = time.monotonic()
        if not replica.told_waiting and replica.heard - replica.begun > WAITING_SECONDS:
            replica.told_waiting = True
            work.note(f"engine {replica.number}: waits for room on {replica.process.host}")

    def _let_go(self, replica: Replica, work: Work) -> None:
        """Go on without a replica whose host has gone; what it held is for the others. It is nobody's failure."""
        assert replica.process is not None
        why = f"{replica.process.host} {GONE}"
        self._selector.unregister(replica.channel)
        replica.kill()
        work.take_back(replica, why)
        self._replicas.remove(replica)
        work.note(f"engine {replica.number}: {why}; its work goes to others")

    def _hear_last_words(self, replica: Replica, work: Work) -> None:
        """What it wrote before it ended is in the pipe still."""
        while self._selector.get_map() and any(key.data is replica for key, _ in self._selector.select(timeout=0)):
            before = replica.heard
            self._hear(replica, work)
            if replica.heard == before:  # end of file
                return

    def _limit(self, replica: Replica, work: Work) -> float:
        """Seconds of silence that are too many."""
        if not replica.ready:
            return self._patience.loading_seconds + self._job.model_bytes / self._patience.disk_bytes_per_second
        return work.seconds(replica) if replica.held else float("inf")

    def _replace(self, replica: Replica, why: str, work: Work) -> None:
        """Take back a failed replica's work and start it again, or go on without it."""
        self._selector.unregister(replica.channel)
        if not replica.loaded and (told := self._other_way(replica, why)) and replica.kill():
            self.restarts += 1
            work.note(f"engine {replica.number}: {why}; {told}")
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
        work.take_back(replica, why)
        if gone and replica.failures <= RESTARTS:
            if self.restarts >= RUN_RESTARTS:
                raise EngineError(
                    f"engines were started again {self.restarts} times, and that is the most in a run, last: {why}"
                )
            self.restarts += 1
            work.note(f"engine {replica.number}: {why}; started again")
            self._start(replica)
            return
        why = why if gone else f"{why}, and SIGKILL does not end it"
        self._replicas.remove(replica)
        if not self._replicas:
            raise EngineError(f"the engine failed {replica.failures} times in a row, last: {why}")
        work.note(f"engine {replica.number}: {why}; going on without it")

    def _other_way(self, replica: Replica, why: str) -> str:
        """Change the job to another way of starting a replica that never loaded; what is told, empty where there is none.

        What another replica's failure has changed since this one started is such a way, too.
        """
        if self._started[replica.number] is not self._job:
            return "started again as the others"
        cause = cause_of(why)
        starts = self._job.second_starts if isinstance(self._job, Job) else ()
        other = next((start for start in starts if start.cause == cause), None)
        if other is None or not isinstance(self._job, Job):
            return ""
        self._job = self._job.changed(other)
        self._path = self._job.write()
        for one in self._replicas:
            one.environment = {**one.environment, **other.environment}
        self._common |= other.environment
        return other.told
