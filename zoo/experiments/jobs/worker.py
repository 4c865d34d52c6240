"""A worker of a job, on any host that sees its folder.

`python -m zoo.experiments.jobs.worker FOLDER LAPSE`.
It claims a task whose needs are in the store, runs it as a command on this host would, notes how it ended, and takes the next.
What a worker that fell silent had claimed, others take over: a training goes on from its checkpoint, which lies in the store.
Over a claim stands the artifact's own lock: a stage whose worker has died may live a moment longer. It ends when nothing is
left that it could do.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from zoo.errors import ZooError
from zoo.experiments.jobs.states import Note, Status, in_order, note_path, read_note, statuses, write_note
from zoo.experiments.jobs.tasks import STOP, TOKEN, Job, Task, host_of, is_made, read_job
from zoo.experiments.run import run_chain
from zoo.pipeline.runner import Stopped, watched
from zoo.pipeline.runners.hosts import facts_here, fault_of, no_room_by
from zoo.pipeline.runners.local import die_with_parent
from zoo.pipeline.starts import step_kept
from zoo.store import PARTIAL, is_held, lock_file
from zoo.store.leases import LAPSE_SECONDS, LEASES, Leases
from zoo.targets import visible_gpus

LOOK_SECONDS = 1.0  # between two looks at what can be begun, and at who still holds what
MOST_DEATHS = 5  # workers that a task may end without getting on before it counts as failed
SETTLE_SECONDS = 1.0  # for a signal that ended a stage to reach its worker, too
UNUSABLE = 3  # exit code of a worker whose host cannot do the job


class Worker:
    """One worker at work on a job.

    `stopping`: set to have it end with what it has done so far kept.
    """

    def __init__(self, folder: Path, job: Job, lapse_seconds: float) -> None:
        self._folder, self._job, self._store = folder, job, folder.parents[1]
        self._lapse, self._cards = lapse_seconds, len(visible_gpus())
        self._host = socket.gethostname()
        self._holder = f"{self._host}-{os.getpid()}-{time.time_ns()}"
        self._leases = Leases(folder / LEASES, self._holder, lapse_seconds)
        self._held: int | None = None
        self.stopping = threading.Event()

    def beat(self) -> None:
        """Say that this worker lives.

        What it holds it ends where it was taken for dead, or is told to stop.
        """
        with suppress(OSError):  # a file server that is away for a moment: who falls silent for that loses all it has
            self._leases.renew()
            if (self._folder / STOP).exists() or (self._held is not None and not self._leases.holds(self._held)):
                self.stopping.set()

    def work(self) -> None:
        """Run one task after the other, until nothing is left that this host could do."""
        while not self.stopping.is_set():
            found = statuses(self._folder, self._job, self._store, lapse_seconds=self._lapse)
            if (number := self._claimed(found)) is not None:
                self._held = number
                self._run(number, self._job.tasks[number])
                self._held = None
            elif not any(status.is_open and self._can(status.task) for status in found):
                return
            else:
                self.stopping.wait(LOOK_SECONDS)

    def leave(self) -> None:
        """Have whatever this worker still holds count as free."""
        self._leases.leave()

    def _can(self, task: Task) -> bool:
        return not self._cards or task.gpus <= self._cards

    def _claimed(self, found: Sequence[Status]) -> int | None:
        """The number of a task that is this worker's now; None where there is none to begin."""
        for status in in_order(found):
            task = status.task
            number = self._job.tasks.index(task)
            if not self._can(task) or is_held(lock_file(self._store, task.name)) or not self._leases.claim(number):
                continue
            note = read_note(self._folder, task)
            if not is_made(self._store, task.name) and (note is None or note.state != "failed"):
                return number  # what was done and is there no more is made again
            self._leases.release(number)  # another has ended it since
        return None

    def _run(self, number: int, task: Task) -> None:
        before = read_note(self._folder, task)
        step = step_kept(self._store / PARTIAL / task.name)
        note = Note(state="running", host=self._host, holder=self._holder, since=time.time(), step=step)
        if before is not None and before.state == "running":
            note = note.model_copy(update={"deaths": 1 + (before.deaths if step <= before.step else 0)})
        if note.deaths >= MOST_DEATHS:
            at = f"they were at it{f' and it stayed at step {step}' if step > 0 else ''}"
            told = f"{note.deaths} workers died while {at}, the last on {before.host if before else 'another host'}"
            self._end(number, task, note, f"{told}; see what ended them there")
            return
        write_note(self._folder, task, note)
        _say(f"{task.title}{'' if task.fold is None else f', fold {task.fold}'}: {task.name}")
        try:
            with watched(lambda _: nullcontext(), stopped=self.stopping):
                run_chain([task.request], self._job.entries[task.entry], self._store, say=_say)
        except Stopped:
            self._drop(number, task)
        except Exception as error:  # whatever it is, it is this task's, and others go on
            if self.stopping.wait(SETTLE_SECONDS):
                self._drop(number, task)
            elif why := no_room_by(str(error), self._store):
                with suppress(OSError):
                    self._drop(number, task)
                raise ZooError(f"{self._host}: {why}; free some room there", exit_code=UNUSABLE) from error
            else:
                self._end(number, task, note, str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}")
        else:
            self._end(number, task, note, "")

    def _end(self, number: int, task: Task, note: Note, failure: str) -> None:
        if not self._leases.holds(number):  # another took it over while this one was silent, and says how it ended
            self._drop(number, task)
            return
        _say(f"{task.name}: {f'failed: {failure}' if failure else 'done'}")
        ended = {"state": "failed" if failure else "done", "ended": time.time(), "message": failure}
        write_note(self._folder, task, note.model_copy(update=ended))
        self._leases.release(number)

    def _drop(self, number: int, task: Task) -> None:
        """Leave a task to others, who go on from what is there."""
        _say(f"{task.name}: left to others")
        if self._leases.holds(number):
            note_path(self._folder, task).unlink(missing_ok=True)
            self._leases.release(number)


def _say(text: str) -> None:
    print(f"[{time.strftime('%F %T')}] {text}", flush=True)


def check_host(folder: Path, job: Job) -> None:
    """ZooError naming this host where it cannot do a job's work, and the mend."""
    here = facts_here(folder / TOKEN, job.files(folder.parents[1]))
    if fault := fault_of(here, host_of(folder), folder):
        raise ZooError(fault, exit_code=UNUSABLE)


@contextmanager
def _ended_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Have a signal that asks for the end of this process end what it works on first."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopping.set()) for number in numbers]
    try:
        yield
    finally:
        for number, one in zip(numbers, before, strict=True):
            signal.signal(number, one)


def main(argv: Sequence[str]) -> int:
    folder, lapse_seconds = Path(argv[0]), float(argv[1]) if len(argv) > 1 else LAPSE_SECONDS
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, and stages would not hear it either
    try:
        job = read_job(folder)
        check_host(folder, job)
        worker = Worker(folder, job, lapse_seconds)
    except (ZooError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return UNUSABLE
    failed: list[BaseException] = []

    def work() -> None:
        try:
            worker.work()
        except BaseException as error:
            failed.append(error)

    # Beside the thread that hears signals: a stage's own handling of them would take their place.
    thread = threading.Thread(target=work, name="work")
    with _ended_by_signals(worker.stopping):
        worker.beat()  # before it claims anything: the job may have been stopped while this worker waited for its host
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            worker.beat()
        worker.leave()
    if failed:
        known = isinstance(failed[0], ZooError)
        told = failed[0] if known else f"{socket.gethostname()}: {folder}: {failed[0]}; see whether its disk is full or gone"
        print(f"error: {told}", file=sys.stderr, flush=True)
        return UNUSABLE if known else 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that show a stage elsewhere may hang where the tracking server does
