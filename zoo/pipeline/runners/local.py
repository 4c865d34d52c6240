"""The local runner: a process of this host that is spoken to line by line.

It is ended with all it has started.
It reads commands from its standard input, and writes what it has to say to the descriptor that is its last argument.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from zoo.errors import ZooError
from zoo.pipeline.runners.environment import RUNNER

PARENT = "ZOO_REPLICA_PARENT"  # the process id of whoever started it, so that it notices being an orphan
MARK = "ZOO_REPLICA"  # in the environment of all that it starts, so that they are found when it has ended
UNTITLED = {"SPT_NOENV": "1"}  # vLLM's workers set their titles, which else overwrites the environment that /proc shows
COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # else torch compiles into the temporary folder, anew each time
GOODBYE_SECONDS = 20.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
KILL_SECONDS = 30.0  # a process in an uninterruptible system call, of a GPU's driver say, outlives SIGKILL


def die_with_parent() -> None:
    """On Linux, have this process end with the one that started it.

    Even where that is killed with SIGKILL: no orphan goes on holding a GPU. `RUNNER` names it in the environment.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(os.environ.get(RUNNER, os.getppid())):  # it was killed before the line above
            sys.exit(1)


class Process:
    """A process of this host.

    `channel`: the descriptor that its messages are read from, readable also once it has ended. `host` names where it runs,
    nothing here; `waiting`: whether it has yet to be started, `lost`: whether its host has gone.
    """

    host, waiting, lost = "", False, False

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command in this process's environment with `environment` added to it."""
        self.channel, write_end = os.pipe()
        self._mark = secrets.token_hex(8)
        # vLLM leaves files in the temporary folder. A short path: those of sockets are at most 107 characters long.
        self._temporary = tempfile.TemporaryDirectory(prefix="zoo-", ignore_cleanup_errors=True)
        own = {COMPILED: os.environ.get(COMPILED) or str(compiled_folder()), "TMPDIR": self._temporary.name}
        self._process = subprocess.Popen(
            [*command, str(write_end)],
            stdin=subprocess.PIPE,
            pass_fds=(write_end,),
            env={**os.environ, **own, **environment, **UNTITLED, PARENT: str(os.getpid()), MARK: self._mark},
        )
        os.close(write_end)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait()

    def send(self, line: bytes) -> None:
        """Give it a line; one that has ended takes none, which is noticed elsewhere."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def kill(self) -> bool:
        """End the process and all it has started, at once.

        A stopped or hung process takes no other signal. Of a process that ended by itself, what it left behind: a split
        engine's workers would hold their GPUs. They stay in the group of this process, which others end as a whole. False where
        one is there still after `KILL_SECONDS`.
        """
        if self._process.poll() is None:  # else its number may be another process's by now
            end(descendants(self._process.pid))
            self._process.kill()
        deadline = time.monotonic() + KILL_SECONDS
        while (left := marked(self._mark)) or self._process.poll() is None:
            end(left)
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        gone = not left and self._process.poll() is not None
        self._close()
        return gone

    def leave(self) -> None:
        """Ask an idle process to end, and see that it does."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GOODBYE_SECONDS)
        self.kill()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self.channel)
        self._temporary.cleanup()


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


def end(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each that is still there.

    A number that by now is another process's is left alone.
    """
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def marked(mark: str) -> list[psutil.Process]:
    """Processes that were started with a replica's mark, wherever they hang by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def descendants(pid: int) -> list[psutil.Process]:
    """Processes that a process has started, and theirs; none where it has ended."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []
