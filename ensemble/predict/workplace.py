"""Where a prediction works: its folder in the home, or elsewhere where that is full.

The folder is held by one prediction at a time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.runners.environment import RUNNER
from zoo.store import open_lock, write_atomic
from zoo.tracking.spans import span

LOCK = "lock"
POLL_SECONDS = 0.1
PROBE_BYTES = 1 << 16  # room for a request, a list of rows and a chunk


class Workplace:
    """The folder of a prediction, and a temporary one where its disk has no room."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder, self._say = folder, say
        self._elsewhere: Path | None = None
        self._told = False

    def folder_for(self, name: str) -> Path:
        """Where to write for `name`: in the folder if it takes a file, else in the temporary one.

        OSError where neither does.
        """
        try:
            _probe(self.folder)
            return self.folder / name
        except OSError as error:
            if self._elsewhere is None:
                self._elsewhere = Path(tempfile.mkdtemp(prefix="predict-"))
            _probe(self._elsewhere)
            if not self._told:
                self._told = True
                self._say(f"{self.folder}: {error.strerror or error}; working in {self._elsewhere}, nothing of it will be kept")
            return self._elsewhere / name

    def remove_temporary(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)


def _probe(folder: Path) -> None:
    """OSError where the folder takes no file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ".probe", bytes(PROBE_BYTES))
    (folder / ".probe").unlink()


@contextmanager
def only_one(folder: Path, patience_seconds: float, say: Say) -> Iterator[int | None]:
    """Hold a work folder while the block runs, and yield its lock's descriptor.

    The jobs keep it open and hold it as long as one of them lives, so that no other prediction works beside them. Those of a
    prediction that was killed, and did not end by themselves, are ended. None, and nothing is held, where the folder cannot
    be written: the work is in a temporary folder then. ZooError names the process that holds the folder longer than
    `patience_seconds`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = open_lock(folder / LOCK)
    except OSError:
        yield None
        return
    try:
        with span("wait for the work folder"):
            _acquire(descriptor, folder, patience_seconds, say)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, patience_seconds: float, say: Say) -> None:
    give_up = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holders = _holders(folder / LOCK)
        orphans = {pid: process for pid, process in holders.items() if _runner(process) not in (None, *holders)}
        for pid, process in orphans.items():
            say(f"ending process {pid}, left behind by a prediction that was killed")
            _end(process)
        if not orphans and time.monotonic() >= give_up:
            pids = sorted({runner for process in holders.values() if (runner := _runner(process)) in holders} or holders)
            who = f"process {pids[0]}" if pids else "another process"
            raise ZooError(
                f"{folder}: {who} is predicting these battles by this plan; wait for it"
                + (f", or end it: kill {pids[0]}" if pids else "")
            )
        time.sleep(POLL_SECONDS)


def _holders(lock: Path) -> dict[int, psutil.Process]:
    """Other processes that have the lock's file open, by process id."""
    found, path = {}, os.path.realpath(lock)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path == path for file in process.open_files()):
                found[process.pid] = process
    return found


def _runner(process: psutil.Process) -> int | None:
    """The process id of the prediction that started a job, as the job's environment has it; None for what is no job."""
    with suppress(psutil.Error, OSError, ValueError):
        return int(process.environ()[RUNNER]) if RUNNER in process.environ() else None
    return None


def _end(process: psutil.Process) -> None:
    """Kill a job and its group: it is known by the lock it holds, and psutil checks that its id is still its own."""
    with suppress(psutil.Error, OSError):
        leads = os.getpgid(process.pid) == process.pid
        if process.is_running() and leads:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
