"""`python -m zoo.bundle.training`: train an entry's folds within a notebook's hours.

Each fold in turn, on the GPUs that are there, from the checkpoint that an earlier run of the notebook left. When the hours are
over, training is ended where it is: its last checkpoint is what the next run goes on from. The archive holds all of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

from pydantic import Field

from zoo.bundle.trained import ARCHIVE, CONTENTS, Trained, TrainedFold, pack, read_contents, unpack
from zoo.contracts import Contract, Entry, FoldRule, Held, Input, Say, Seconds, TrainRequest, changed
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input, train_requests
from zoo.pipeline.runner import run_stage
from zoo.store import MANIFEST, PARTIAL, artifact_name, write_atomic
from zoo.targets import VISIBLE, visible_gpus

TRAINING = "training.json"  # in a bundle's job/, where an entry is to be trained
# Where the train stage has the step that it reached: under another name where it was ended while one took the other's place.
CHECKPOINTS = tuple(Path(name) / "state.json" for name in ("checkpoint", "checkpoint.new", "checkpoint.old"))


class Training(Contract):
    """What a bundle trains: folds of an entry, from base weights that the bundle brings."""

    entry: Entry
    base: Annotated[str, Field(pattern=r"^fetch-[0-9a-f]{16}$")]
    n_folds: Annotated[int, Field(ge=2)]
    rule: FoldRule | None
    folds: Annotated[tuple[int, ...], Field(min_length=1)]


class Orders(Contract):
    """What the notebook's script tells this process: paths, and when to end, in Unix seconds."""

    store: Path
    ends_at: Seconds
    earlier: tuple[Path, ...] = ()
    pack: bool = Field(True, description="leave an archive; else another process does")


@contextmanager
def hours(ends_at: float) -> Iterator[Callable[[], bool]]:
    """End the stage that runs in the block at a moment of `time.monotonic()`.

    Yields whether it has come.

    The stage gets SIGTERM by this process's own, which the runner hands on while a stage runs, and which says nothing
    otherwise: what is finished is committed. Again every second, since a stage may just have started. In the main thread alone.
    """
    over = False

    def end(_: int, __: FrameType | None) -> None:
        nonlocal over
        over = True
        os.kill(os.getpid(), signal.SIGTERM)

    kept = {signal.SIGALRM: end, signal.SIGTERM: lambda _, __: None}
    before = {number: signal.signal(number, handler) for number, handler in kept.items()}
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, ends_at - time.monotonic()), 1.0)
    try:
        yield lambda: over
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def train_folds(training: Training, battles: Path, store: Path, *, ends_at: float, say: Say) -> Trained:
    """Train the folds one after the other; how far each came.

    Until all are finished or `time.monotonic()` is `ends_at`.

    A fold that fails is told and keeps no other from its turn; one that is told to end (SIGTERM) ends them all. ZooError where
    the battles cannot be used, or the base weights are not in the store.
    """
    requests = fold_requests(training, battles, store, say=say)
    with hours(ends_at) as over:
        for fold, request in requests.items():
            if over() or time.monotonic() >= ends_at:
                say(f"fold {fold}: the hours are over")
                continue
            say(f"fold {fold}: {_state(store, request)}")
            try:
                run_stage(request, store, say=say)
            except ZooError as error:
                say(f"fold {fold}: " + ("the hours are over" if over() else f"error: {error}"))
                if not over() and "SIGTERM" in str(error):
                    break
            else:
                say(f"fold {fold}: finished")
    return how_far(training, requests, store)


def side_by_side(
    training: Training, folds: Sequence[Sequence[int]], places: Sequence[str], orders: Orders, battles: Path
) -> None:
    """Train some folds on each of some GPUs, a process of this module each.

    `places`: what each is to see of the GPUs. The processes end by the hours themselves, and by this one's end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        started = []
        for number, (some, place) in enumerate(zip(folds, places, strict=True)):
            files = [Path(scratch) / f"{name}-{number}.json" for name in ("training", "orders")]
            files[0].write_text(changed(training, folds=tuple(some)).model_dump_json())
            files[1].write_text(changed(orders, earlier=(), pack=False).model_dump_json())
            command = [sys.executable, "-m", "zoo.bundle.training", *map(str, files), str(battles), scratch]
            started.append(subprocess.Popen(command, env={**os.environ, VISIBLE: place}))
        try:
            for process in started:
                process.wait()
        finally:
            for process in started:
                process.terminate()


def dealt(folds: Sequence[int], gpus: Sequence[str], each: int) -> tuple[list[list[int]], list[str]]:
    """Folds for groups of `each` GPUs, and what each group sees of them.

    No group where there are too few GPUs for one.
    """
    places = [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)][: len(folds)]
    return [list(folds[number :: len(places)]) for number in range(len(places))], places


def fold_requests(training: Training, battles: Path, store: Path, *, say: Say) -> dict[int, TrainRequest]:
    """The request of each fold."""
    where = battles_input(battles, say=say)
    return {fold: _request(training, fold, where, store) for fold in training.folds}


def how_far(training: Training, requests: Mapping[int, TrainRequest], store: Path) -> Trained:
    """What there is of each fold in the store."""
    folds = (_fold(store, fold, request) for fold, request in requests.items())
    return Trained(entry=training.entry.name, created_at=datetime.now(UTC), folds=tuple(filter(None, folds)))


def _request(training: Training, fold: int, battles: Input, store: Path) -> TrainRequest:
    """The request of a fold, as `zoo train` makes it where the artifact is to be used."""
    entry, place = training.entry, store / training.base
    if not (place / MANIFEST).exists():
        raise ZooError(f"{training.base}: the base weights are not among the inputs; add the bundle's model-1 to them")
    if not entry.prompt or not entry.train:
        raise ZooError(f"{entry.name}: has no [prompt] and [train]; only language models and encoders are trained")
    held = Held(n_folds=training.n_folds, fold=fold, rule=training.rule)
    base = Input(path=place, fingerprint=training.base.rpartition("-")[2])
    return train_requests(entry, store, base=base, battles=battles, held=held)[-1]


def _fold(store: Path, fold: int, request: TrainRequest) -> TrainedFold | None:
    """How far a fold came; None where nothing of it is worth keeping."""
    name = artifact_name(request)
    if (store / name / MANIFEST).exists():
        return TrainedFold(fold=fold, artifact=name, finished=True)
    steps = _steps(store, request)
    return None if steps is None else TrainedFold(fold=fold, artifact=name, finished=False, steps=steps)


def _steps(store: Path, request: TrainRequest) -> int | None:
    """Steps of a fold's last checkpoint; None without one."""
    for place in CHECKPOINTS:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((store / PARTIAL / artifact_name(request) / place).read_text())["progress"]["step"])
    return None


def _state(store: Path, request: TrainRequest) -> str:
    if (store / artifact_name(request) / MANIFEST).exists():
        return "finished before"
    steps = _steps(store, request)
    return "begins" if steps is None else f"goes on from step {steps}"


def take_over(inputs: Sequence[Path], store: Path, *, say: Say) -> None:
    """Put what an earlier run of the notebook left into the store, by the newest archive.

    One that cannot be used is told and does not end the run.
    """
    found: list[tuple[datetime, Path]] = []
    for archive in inputs:
        try:
            found.append((read_contents(archive).created_at, archive))
        except ZooError as error:
            say(f"warning: {error}")
    for _, archive in sorted(found, reverse=True):
        try:
            trained, new = unpack(archive, store)
        except ZooError as error:
            say(f"warning: {error}")
            continue
        say(f"{archive}: {len(trained.finished)} of {len(trained.folds)} folds finished; {len(new)} taken over")
        return


def main(arguments: Sequence[str]) -> int:
    """Train as the files say, and leave the archive with its contents beside it."""
    if len(arguments) != 4:
        print("usage: python -m zoo.bundle.training TRAINING.json ORDERS.json BATTLES FOLDER", file=sys.stderr)
        return 2

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        training = Training.model_validate_json(Path(arguments[0]).read_text())
        orders = Orders.model_validate_json(Path(arguments[1]).read_text())
        folder = Path(arguments[3])
        trained = _trained(training, orders, Path(arguments[2]), say)
    except (ZooError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not orders.pack:
        return 0
    if not trained.folds:  # hours that left nothing must not look like hours that did
        print("error: no fold has a finished training or a checkpoint: the lines above say why", file=sys.stderr)
        return 1
    pack(trained, orders.store, folder / ARCHIVE)
    write_atomic(folder / CONTENTS, trained.model_dump_json(indent=1))
    say(f"{len(trained.finished)} of {len(training.folds)} folds are finished; {folder / ARCHIVE} holds what there is")
    return 0


def _trained(training: Training, orders: Orders, battles: Path, say: Say) -> Trained:
    """Take over what an earlier run left, and train: a fold a card where there are several."""
    take_over(orders.earlier, orders.store, say=say)
    ends_at = time.monotonic() + orders.ends_at - time.time()
    each = training.entry.train.gpus if training.entry.train else 1
    folds, places = dealt(training.folds, visible_gpus(), each)
    if len(places) < 2:
        return train_folds(training, battles, orders.store, ends_at=ends_at, say=say)
    requests = fold_requests(training, battles, orders.store, say=say)
    say(f"{len(places)} folds at a time, {each} GPU each")
    side_by_side(training, folds, places, orders, battles)
    return how_far(training, requests, orders.store)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
