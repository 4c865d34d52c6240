"""One trial's training, looked at as it goes, and ended where it is not worth its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from zoo.contracts import Entry, Request, Say, StageResult, TrainRequest
from zoo.errors import OutOfMemory
from zoo.experiments.cards import Cards, Loan, Need
from zoo.experiments.run import run_chain
from zoo.pipeline.runner import Stopped, watched
from zoo.scores.metric_names import HELD_OUT_LOSS, TRAIN_SHARE
from zoo.settings import home
from zoo.store import LIVE, PARTIAL, RESULT, Artifact, artifact_name, discard, if_free, lock_file
from zoo.tracking.live import read_lines

LOOK_SECONDS = 0.5  # between two looks at a training
TELL_SECONDS = 30.0  # between two lines of how far it is


@dataclass
class Following:
    """What is known of a training as it runs.

    `judge` takes (share of the training, held-out log loss) of each evaluation, once, and says why the training is to end
    there, empty where it is not; `look` says the same between evaluations. `stopped` ends the training once it is set. `fault`:
    what broke while it was looked at.
    """

    judge: Callable[[float, float], str]
    look: Callable[[], str]
    stopped: Event = field(default_factory=Event)
    why: str = ""
    total: int | None = None
    fault: Exception | None = None
    _seen: set[int] = field(default_factory=set)
    _held: list[tuple[int, float]] = field(default_factory=list)

    def stop(self, why: str) -> None:
        """End the training, for the first of several reasons."""
        if not self.stopped.is_set():
            self.why = why
            self.stopped.set()

    def hear(self, line: dict[str, object]) -> None:
        """Take a line of what the stage says of itself."""
        bar, step, value = line.get("bar"), line.get("step"), line.get("value")
        if isinstance(bar, dict) and bar.get("description") == "train" and isinstance(bar.get("total"), int):
            self.total = bar["total"]
        if line.get("name") == HELD_OUT_LOSS and isinstance(step, int) and isinstance(value, float) and step > 0:
            self._held.append((step, value))
        self._pass_on()

    def finished(self, curve: Sequence[tuple[int, float]], total: int) -> None:
        """Take the evaluations of a training that has ended.

        Of the last ones nothing was seen in time.
        """
        self.total = total
        self._held.extend((step, value) for step, value in curve if step > 0)
        self._pass_on()

    def _pass_on(self) -> None:
        if self.total is None:
            return
        for step, value in self._held:
            if step not in self._seen:
                self._seen.add(step)
                if reason := self.judge(step / self.total, value):
                    self.stop(reason)
        self._held.clear()


def train(
    requests: Sequence[Request], entry: Entry, store: Path, cards: Cards, need: Need, following: Following, *, say: Say
) -> Artifact:
    """Run a trial's trainings; the artifact of the last.

    An earlier one runs before its own where it has one.

    Raises Stopped where `following` ended it. One that runs out of memory beside others is run again, once, with its cards to
    itself.
    """
    last = requests[-1]
    assert isinstance(last, TrainRequest)

    def watch(partial: Path) -> AbstractContextManager[None]:  # an earlier training is not judged
        return followed(partial, following, say=say, heard=partial.name == artifact_name(last))

    def once(loan: Loan) -> Artifact:
        if following.stopped.is_set():  # while it waited for its cards
            raise Stopped
        keep_open = (loan.lock,) if loan.lock >= 0 else ()
        with watched(watch, environment=loan.environment, keep_open=keep_open, stopped=following.stopped):
            return run_chain(list(requests), entry, store, say=say)[-1]

    try:
        with cards.lent(need, stopped=following.stopped) as loan:
            artifact = once(loan)
    except OutOfMemory:
        if loan.whole:
            raise
        say("out of memory beside other trainings; once more, with its cards to itself")
        with cards.lent(need, alone=True, stopped=following.stopped) as loan:
            artifact = once(loan)
    curve, total = evaluations(artifact)
    following.finished(curve, total)
    return artifact


@contextmanager
def followed(partial: Path, following: Following, *, say: Say, heard: bool = False) -> Iterator[None]:
    """Look at the stage that runs in a folder while the block runs.

    `heard`: take in what it says of its losses. Raises what broke in looking, a study's file that cannot be written, say: a
    training that nobody looks at any more would know of no budget.
    """
    ended = Event()
    thread = Thread(target=_follow, args=(partial / LIVE, following, ended, say), kwargs={"heard": heard}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if following.fault is not None:
            raise following.fault


def _follow(live: Path, following: Following, ended: Event, say: Say, *, heard: bool) -> None:
    """Look until the stage has ended; what breaks in that ends the training."""
    try:
        _hear_all(live, following, ended, say, heard=heard)
    except Exception as fault:
        following.fault = fault
        following.stop(str(fault))


def _hear_all(live: Path, following: Following, ended: Event, say: Say, *, heard: bool) -> None:
    """Hear what a running stage says until it has ended; now and then, say how far it is."""
    place, told = 0, time.monotonic()
    while not ended.wait(LOOK_SECONDS):
        if reason := following.look():
            following.stop(reason)
        place, lines = read_lines(live, place)
        for line in lines if heard else []:
            following.hear(line)
        far = [line["progress"] for line in lines if "progress" in line]
        if far and time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            say(str(far[-1]))


def evaluations(artifact: Artifact) -> tuple[list[tuple[int, float]], int]:
    """The held-out log losses of a finished training by step, and all its steps.

    Those are the steps that it would have had in all, where it ended early by itself.
    """
    curves = StageResult.model_validate_json((artifact.path / RESULT).read_text()).curves
    curve = [(int(step), float(value)) for step, value in curves[HELD_OUT_LOSS]]
    return curve, max(1, round(curve[-1][0] / artifact.manifest.metrics[TRAIN_SHARE]))


def drop_unfinished(request: Request, store: Path) -> None:
    """Remove what a training that nobody goes on with has left: its checkpoint."""
    partial = store / PARTIAL / artifact_name(request)
    with if_free(lock_file(store, partial.name)) as free, suppress(FileNotFoundError):
        if free and partial.exists():
            discard(partial, home())
