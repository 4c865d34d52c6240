"""Killing parts of a cluster on purpose: engines, the processes that hold them, hosts."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import psutil


def engines_of(folder: Path) -> list[psutil.Process]:
    """Processes of this machine that have a file of the folder as an argument and read commands: the engines of a run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            words = process.cmdline()
            if any(word == str(folder / "job.json") for word in words):
                found.append(process)
    return found


def kill_engine(folder: Path, draw: random.Random) -> bool:
    """End one of the engines as a crash of the machine's driver would."""
    if found := engines_of(folder):
        return _kill(draw.choice(found))
    return False


def kill_holder(folder: Path, draw: random.Random) -> bool:
    """End the process that holds one of the engines: on a cluster, its actor."""
    if found := engines_of(folder):
        with suppress(psutil.Error):
            parent = draw.choice(found).parent()
            return parent is not None and parent.pid != os.getpid() and _kill(parent)
    return False


def _kill(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGKILL)
        return True
    return False
