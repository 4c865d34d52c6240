"""A command's session with a runner.

It is chosen, and its hosts are looked at, before any stage starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.runners.chosen import CHOSEN, Runner, current_runner
from zoo.pipeline.runners.ray_address import ADDRESS


@contextmanager
def running_on(runner: Runner | None, store: Path, say: Say) -> Iterator[None]:
    """Have the stages that start within the block run by this runner.

    None: by the one that is set.
    With ray the cluster is held open as long. ZooError, naming host and mend, where there is none or a host of it cannot be
    used.
    """
    before = os.environ.get(CHOSEN)
    try:
        if runner is not None:
            os.environ[CHOSEN] = runner
        match current_runner():
            case "ray":
                with _cluster(store, say):
                    yield
            case _:
                yield
    finally:
        if before is None:
            os.environ.pop(CHOSEN, None)
        else:
            os.environ[CHOSEN] = before


@contextmanager
def _cluster(store: Path, say: Say) -> Iterator[None]:
    try:
        from zoo.pipeline.runners.ray import address, alive_nodes, connected, looked_at
    except ModuleNotFoundError as error:
        raise ZooError("--runner ray: Ray is not installed; pip install 'preference-zoo[ray]'") from error
    with connected(say=say):
        before, os.environ[ADDRESS] = os.environ.get(ADDRESS), address()
        try:
            nodes = alive_nodes()
            looked_at(nodes, store)
            say(f"Ray at {address()}: {', '.join(f'{node.name} ({node.told})' for node in nodes) or 'no host that takes work'}")
            yield
        finally:
            if before is None:
                os.environ.pop(ADDRESS)
            else:
                os.environ[ADDRESS] = before
