"""Fleets: where the engines of a run are started, and how they are spoken to there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from zoo.contracts import Say
from zoo.pipeline.runners.chosen import current_runner
from zoo.pipeline.runners.local import Process
from zoo.targets import machine_fingerprint, visible_gpus


class Started(Protocol):
    """A process that was started on some host, as `local.Process`."""

    @property
    def channel(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def waiting(self) -> bool: ...
    @property
    def lost(self) -> bool: ...
    def poll(self) -> int | None: ...
    def send(self, line: bytes) -> None: ...
    def kill(self) -> bool: ...
    def leave(self) -> None: ...


class Fleet(Protocol):
    """Hosts of one kind of machine.

    `machine`: its fingerprint, as cards and chunks name it; `on_gpu`: whether engines run on cards; `copies`: how many the
    hosts had room for at first. `start` runs a command for a copy by its number, `joined` says how many more copies there is
    room for than when it was last asked.
    """

    @property
    def machine(self) -> str: ...
    @property
    def on_gpu(self) -> bool: ...
    @property
    def copies(self) -> int: ...
    def start(self, number: int, command: Sequence[str], environment: Mapping[str, str]) -> Started: ...
    def joined(self, say: Say) -> int: ...


class Here:
    """This host alone: the local runner's fleet.

    Its cards are dealt by the environment of each place.
    """

    copies = 1

    @property
    def machine(self) -> str:
        return machine_fingerprint()

    @property
    def on_gpu(self) -> bool:
        return bool(visible_gpus())

    def start(self, number: int, command: Sequence[str], environment: Mapping[str, str]) -> Started:
        return Process(command, environment)

    def joined(self, say: Say) -> int:
        return 0


@contextmanager
def engine_fleet(gpus: int, target: str | None, folder: Path) -> Iterator[Fleet | None]:
    """The hosts of the runner that this process is told to use; None for this host.

    For engines of `gpus` cards each.
    `folder` is in the store, which all of them have to see. ZooError, naming the host and the mend, where one of them cannot
    be used.
    """
    if current_runner() != "ray":
        yield None
        return
    from zoo.pipeline.runners.ray import connected
    from zoo.pipeline.runners.ray_fleet import RayFleet

    with connected():
        yield RayFleet(gpus, target, folder)
