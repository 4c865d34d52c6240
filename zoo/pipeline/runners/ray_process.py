"""A process on a host of a Ray cluster, held by an actor there.

An actor holds one process, which is started and spoken to as on this host (`local.Process`); it passes lines on and knows
nothing of what they say. It is made anew after it died, not restarted by Ray: its engine is gone, and who feeds it has to know.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from zoo.errors import ZooError
from zoo.pipeline.runners.local import GOODBYE_SECONDS, KILL_SECONDS, Process
from zoo.pipeline.runners.ray import OWN_PYTHON, SET_BY_RAY, Node, has_gone, on
from zoo.pipeline.runners.ray_address import REACH_SECONDS

POLL_SECONDS = 0.25


class Holder:
    """The actor: holds a process on its host.

    It passes lines between it and whoever made the actor.
    """

    def __init__(self) -> None:
        self._process: Process | None = None
        self._next, self._early = 0, dict[int, bytes]()

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Start the process; why it could not be, empty where it was."""
        os.environ.pop(SET_BY_RAY, None)
        try:
            self._process = Process([sys.executable if word == OWN_PYTHON else word for word in command], environment)
        except (OSError, ZooError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    async def send(self, number: int, line: bytes) -> None:
        """Lines in the order of their numbers: calls of such an actor may overtake each other."""
        assert self._process is not None
        self._early[number] = line
        while self._next in self._early:
            self._process.send(self._early.pop(self._next))
            self._next += 1

    async def read(self) -> tuple[bytes, int | None]:
        """What it has said since, once there is something.

        With its exit code when it has ended and said all.
        """
        process = self._process
        if process is None:
            return b"", 0
        os.set_blocking(process.channel, False)
        while self._process is process:
            code = process.poll()  # before reading: what it wrote before it ended is read then
            try:
                if data := os.read(process.channel, 1 << 20):
                    return data, None
                await asyncio.sleep(POLL_SECONDS)  # it has closed its end, and is about to end
            except BlockingIOError:
                await _readable(process.channel, 0.0 if code is not None else POLL_SECONDS)
            if code is not None:
                return b"", code
        return b"", 0  # it is being ended

    async def leave(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.leave)

    async def kill(self) -> bool:
        process, self._process = self._process, None
        return process is None or await asyncio.to_thread(process.kill)


async def _readable(descriptor: int, seconds: float) -> None:
    """Until there is something to read, at most so long."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(ready.wait(), seconds)
    finally:
        loop.remove_reader(descriptor)


class RayProcess:
    """A process on a host of the cluster, as `local.Process` is one of this host.

    A thread carries what it says to `channel`. `waiting`: its host has no room for it yet; `lost`: its host has gone.
    """

    def __init__(self, node: Node, gpus: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.host, self.waiting, self.lost = node.name, True, False
        self.channel, self._write = os.pipe()
        self._node, self._sent = node, 0
        self._code: int | None = None
        room = {"num_gpus": gpus} if gpus else {"num_cpus": node.cpus}
        holder: Any = ray.remote(Holder)
        self._actor = holder.options(max_restarts=0, **{"num_cpus": 0, **room}, **on(node)).remote()
        self._begun = self._actor.start.remote(
            [OWN_PYTHON if word == sys.executable else word for word in command], environment
        )
        threading.Thread(target=self._carry, daemon=True).start()

    def poll(self) -> int | None:
        return self._code

    def send(self, line: bytes) -> None:
        with suppress(RayError):  # it has ended, which is noticed elsewhere
            self._actor.send.remote(self._sent, line)
        self._sent += 1

    def kill(self) -> bool:
        """End the process, all it has started, and the actor.

        False where the host is there and does not do it.
        """
        gone = True
        try:
            gone = self.waiting or ray.get(self._actor.kill.remote(), timeout=KILL_SECONDS + REACH_SECONDS)
        except GetTimeoutError:
            gone = False
        except RayError:  # the actor has ended, and its process with it
            pass
        self._close()
        return gone

    def leave(self) -> None:
        with suppress(RayError):
            ray.get(self._actor.leave.remote(), timeout=GOODBYE_SECONDS + KILL_SECONDS)
        self._close()

    def _close(self) -> None:
        with suppress(RayError):
            ray.kill(self._actor)
        os.close(self.channel)

    def _carry(self) -> None:
        """What the process says, to its end, into the pipe that `channel` reads."""
        code = -signal.SIGKILL
        try:
            refused = ray.get(self._begun)
            self.waiting = False
            if refused:
                self._put(json.dumps({"kind": "error", "message": refused}).encode() + b"\n")
            ended = 1 if refused else None
            while ended is None:
                data, ended = ray.get(self._actor.read.remote())
                self._put(data)
            code = ended
        except RayTaskError as error:  # it could not even be imported there
            with suppress(OSError):
                self._put(json.dumps({"kind": "error", "message": str(error.cause or error).splitlines()[-1]}).encode() + b"\n")
        except RayError:  # the actor has ended, or its host
            self.lost = has_gone(self._node)
        except OSError:  # nobody reads any more
            pass
        finally:
            self._code, self.waiting = code, False
            os.close(self._write)

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write, data) :]
