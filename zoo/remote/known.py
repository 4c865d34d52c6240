"""A stage's result that somebody else has made, taken from the remote."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from zoo.contracts import Request, Say
from zoo.errors import ZooError
from zoo.remote.address import parse_address
from zoo.remote.contents import read_index, read_kept
from zoo.remote.faults import Unreachable
from zoo.remote.files import RemoteFiles
from zoo.remote.pull import pull_artifact, pull_earlier
from zoo.settings import remote_address, store_folder
from zoo.store import Artifact, artifact_name

TELL_SECONDS = 10.0  # between two lines of how much has arrived
logger = logging.getLogger("zoo")
_gone: set[str] = set()  # remotes that did not answer this process: no further stage waits for them


def pull_known(request: Request, store: Path, say: Say) -> Artifact | None:
    """The artifact of a request from the remote, where one is set and has it.

    Hold the artifact's lock. A remote that does not answer, or whose copy is broken, costs a line: the stage is made here. Only
    for the home's own store: what is measured elsewhere must be made here.
    """
    text = remote_address()
    if not text or text in _gone or store != store_folder():
        return None
    address, name = parse_address(text), artifact_name(request)
    try:
        with RemoteFiles(address) as files:
            kept = read_kept(files, name)
            if kept is None:
                return None
            say(f"{name}: taken from {address}, {kept.bytes / 2**20:,.1f} MiB")
            pull_earlier(kept, files, store, read_index(files))
            return pull_artifact(kept, files, store, _telling(say))
    except ZooError as error:
        if error.exit_code != 1:  # settings that want mending
            raise
        if isinstance(error, Unreachable):
            _gone.add(text)
        logger.warning("%s; %s is made here", error, name)
        return None


def _telling(say: Say) -> Any:
    """A bar that says now and then how much has arrived."""

    @contextmanager
    def bar(description: str, total: int) -> Iterator[SimpleNamespace]:
        done, told = 0, time.monotonic()

        def update(more: int) -> None:
            nonlocal done, told
            done += more
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                say(f"{description}: {done / 2**20:,.0f} of {total / 2**20:,.0f} MiB")

        yield SimpleNamespace(update=update)

    return bar
