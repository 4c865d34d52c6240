"""A stage in MLflow while it runs: a RUNNING run with its curves and how far it is.

A thread of the process that waits for the stage reads what the stage says of itself (`zoo.stages.progress`). It costs the stage
nothing: it begins after some seconds, stops for this stage once calls have failed for FAILURE_SECONDS in all, what waits to be
written is bounded, and what is asked at the stage's end has one bound together with what is asked after it. What it did not log
is logged when the stage has ended, or by `zoo sync`, from the stage's own files.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.contracts import Entry, Request
from zoo.pipeline.runner import Stopped
from zoo.scores.metric_names import WITH_FINAL_VALUE
from zoo.settings import home
from zoo.store import LIVE, PARTIAL, artifact_name, is_held, locked, open_lock
from zoo.tracking.bounded import SECONDS
from zoo.tracking.client.connection import connect
from zoo.tracking.client.runs import find_run, finished
from zoo.tracking.client.writing import write_batch
from zoo.tracking.experiments import WEIGHTS, experiment_of
from zoo.tracking.facts import Facts, curve_name, planned_data, planned_facts
from zoo.tracking.home import mark_begun, marker_folder, unreachable
from zoo.tracking.machine import machine_lines
from zoo.tracking.stages import PROGRESS, run_tags

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

logger = logging.getLogger("zoo")
FIRST_SECONDS = 5.0  # a stage that ends before is only logged afterwards
EVERY_SECONDS = 5.0
FAILURE_SECONDS = 5.0  # of calls that fail, in all
LEAST_FAILURE_SECONDS = 0.5  # that one counts for: a refused connection takes no time
MOST_WAITING = 5000  # lines that wait for the store: of more the newest
LAST_SECONDS = 5.0  # for the last lines and the answer to what is logged afterwards, together
NOTE = ".live"  # ending of a file that is locked while a process shows a stage: the kernel frees it with the process


@dataclass
class Following:
    """What the thread and the process that waits for the stage share."""

    request: Request
    entry: Entry | None
    store: Path
    ended: threading.Event = field(default_factory=threading.Event)
    status: str = "FAILED"  # of the run, where the stage does not end well
    runs: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.time)  # seconds since 1970: a run's start is its stage's
    silent: bool = False  # the tracking store did not answer when the stage had ended
    seconds_left: float = SECONDS  # for what is asked of the tracking store after the stage's end
    _writes: bool = False
    _gate: threading.Lock = field(default_factory=threading.Lock)

    def may_write(self) -> bool:
        """Ask before the first write: not when the stage has ended; its end waits for who may."""
        with self._gate:
            self._writes = not self.ended.is_set()
            return self._writes

    def end(self, thread: threading.Thread) -> None:
        """Tell the thread that the stage has ended, and wait for its last lines."""
        with self._gate:
            self.ended.set()
        ended_at = time.monotonic()
        if self._writes:
            thread.join(SECONDS)
        silent = self.silent or (self._writes and thread.is_alive())
        self.seconds_left = 0.0 if silent else max(0.0, LAST_SECONDS - (time.monotonic() - ended_at))


@contextmanager
def shown_live(request: Request, entry: Entry | None, store: Path) -> Iterator[Following]:
    """Show a stage in MLflow while the block runs it.

    Where it ends well its run is left RUNNING, to be filled, within the `seconds_left` of what is yielded.
    """
    following = Following(request, entry, store)
    thread = threading.Thread(target=_follow, args=(following,), name="live", daemon=True)
    thread.start()
    try:
        yield following
        following.status = ""
    except (KeyboardInterrupt, Stopped):
        following.status = "KILLED"
        raise
    finally:
        following.end(thread)


def followed() -> tuple[list[Path], list[Path]]:
    """Notes of stages that are shown as they run: of dead processes, and of living ones."""
    notes = sorted(marker_folder().glob(f"*{NOTE}"))
    held = {note: is_held(note) for note in notes}
    return [note for note in notes if not held[note]], [note for note in notes if held[note]]


def _follow(following: Following) -> None:
    if following.ended.wait(FIRST_SECONDS):
        return
    try:
        marker_folder().mkdir(parents=True, exist_ok=True)
        note = marker_folder() / f"{artifact_name(following.request)}{NOTE}"
        descriptor = open_lock(note)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _show(following, connect())
            note.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    except Exception as error:  # the stage's end says what is wrong with the tracking store, in one line
        following.silent = following.ended.is_set() and unreachable(error)
        logger.debug("the stage is not shown as it runs", exc_info=True)


def _show(following: Following, client: MlflowClient) -> None:
    request = following.request
    # As `mirror_stage` does it: one process at a time, so that no run is made twice, and none when the stage has ended.
    with locked(home(), "tracking"):
        if not following.may_write():
            return
        experiment = experiment_of(client, planned_data(request, following.store) or WEIGHTS)
        mark_begun(artifact_name(request))
        for fact in planned_facts(request, following.entry, following.store):
            if run_id := _begin(client, experiment, fact, following.began):
                following.runs.append(run_id)
    _follow_lines(following, client)
    if following.status:
        for run_id in following.runs:
            client.set_terminated(run_id, following.status)


def _follow_lines(following: Following, client: MlflowClient) -> None:
    """Log what the stage says and what the machine does until the stage ends.

    Raises what the store raises once it has failed for FAILURE_SECONDS.
    """
    place, failed = 0, 0.0
    waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
    path = following.store / PARTIAL / artifact_name(following.request) / LIVE
    while following.runs:
        ended = following.ended.wait(EVERY_SECONDS)
        place, said = read_lines(path, place)
        waiting.extend(said)
        waiting.extend(machine_lines(time.time() - following.began))
        asked = time.monotonic()
        try:
            for run_id in following.runs:
                _log(client, run_id, list(waiting))
            waiting.clear()
        except Exception:
            failed += max(LEAST_FAILURE_SECONDS, time.monotonic() - asked)
            if ended or failed >= FAILURE_SECONDS:
                raise
            logger.debug("points of a running stage wait for the tracking store", exc_info=True)
        if ended:
            return


def _begin(client: MlflowClient, experiment: str, fact: Facts, began: float) -> str | None:
    """The run of a stage that is running: a new one, or that of a killed process; None where it is logged to its end."""
    fingerprint, variant = fact.key
    run = find_run(client, experiment, fingerprint=fingerprint, variant=variant)
    if finished(run):
        return None
    if run is None:
        run = client.create_run(experiment, start_time=round(1000 * began), tags=run_tags(fact))
    else:
        client.update_run(run.info.run_id, status="RUNNING")
    write_batch(client, run.info.run_id, params=fact.params)
    return str(run.info.run_id)


def _log(client: MlflowClient, run_id: str, said: list[dict[str, Any]]) -> None:
    points = [
        (curve_name(line["name"], WITH_FINAL_VALUE), line["value"], round(1000 * line["time"]), line["step"])
        for line in said
        if "name" in line
    ]
    far = [line["progress"] for line in said if "progress" in line]
    if points or far:
        write_batch(client, run_id, points=points, tags={PROGRESS: far[-1]} if far else {})


def read_lines(path: Path, place: int) -> tuple[int, list[dict[str, Any]]]:
    """What a file of JSON lines has from a place on, and the place after its last whole line."""
    try:
        with path.open("rb") as file:
            file.seek(place)
            whole, newline, _ = file.read().rpartition(b"\n")
    except OSError:  # not yet, or no more
        return place, []
    said = [found for line in whole.splitlines() if (found := _read_line(line))]
    return place + len(whole) + len(newline), said


def _read_line(line: bytes) -> dict[str, Any] | None:
    """What a line says; None of one that is damaged: the others are shown, and the stage's end has all of it."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
