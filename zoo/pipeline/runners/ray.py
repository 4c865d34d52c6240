"""The ray runner: engines in actors of a Ray cluster, one a copy of the model.

An actor holds one process, which is started and spoken to as on this host (`local.Process`); it passes lines on and knows
nothing of what they say. It is made anew after it died, not restarted by Ray: its engine is gone, and who feeds it has to know.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.pipeline.runners.ray_address import ADDRESS, CLUSTERS, LOOPBACK, REACH_SECONDS, checked_address, cluster_address

# Read as Ray is imported. Its processes would else give way to all others of their host, and engines with them.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
if "ray" not in sys.modules and cluster_address() is None:  # one is started here, for this host alone
    os.environ.setdefault(CLUSTERS, "0")

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.runners.environment import RUNNER, environment_of
from zoo.pipeline.runners.hosts import HostFacts, facts_here, fault_of, kind_of
from zoo.pipeline.runners.local import GOODBYE_SECONDS, KILL_SECONDS, Process
from zoo.store import write_atomic
from zoo.targets import SHARE, is_of_kind, load_target

LOOK_SECONDS = 120.0  # for a host to answer what it is: a worker process has to start there
JOIN_SECONDS = 5.0  # between two looks at who has come
POLL_SECONDS = 0.25
# What of this process's environment is meant for engines wherever they run. Paths and cards are each host's own.
CARRIED = (
    *("ZOO_*", "VLLM_*", "TORCH_*", "PYTORCH_*", "TRITON_*", "FLASHINFER_*", "OMP_*", "MKL_*", "OPENBLAS_*"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM", "DO_NOT_TRACK", "PYTHONSAFEPATH", "PYTHONUNBUFFERED"),
)
NOT_CARRIED = (RUNNER, SHARE)
OWN_PYTHON = "{python}"  # in a command: the interpreter of whichever host runs it
SET_BY_RAY = "OMP_NUM_THREADS"  # by the processors an actor asks for, which are not the threads of an engine


@contextmanager
def connected(*, say: Say | None = None) -> Iterator[None]:
    """A connection to a cluster, while the block runs.

    That of `RAY_ADDRESS`, else one that is started here and listens on loopback alone.
    What processes of the cluster print is printed here, unless there is a `say`, for notes alone. ZooError where there is none
    at the address, or it is of another Python or Ray.
    """
    if ray.is_initialized():
        yield
        return
    given = checked_address()
    if say is not None:
        say(f"connecting to Ray at {given}" if given else "starting Ray on this host")
    try:
        here: dict[str, Any] = {} if given else {"_node_ip_address": LOOPBACK, "include_dashboard": False}
        ray.init(given or "local", logging_level=logging.ERROR, log_to_driver=say is None, **here)
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise ZooError(f"{ADDRESS}={given or 'local'}: {' '.join(str(error).split())[:300]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def address() -> str:
    """The address of the cluster that this process is connected to."""
    found: str = ray.get_runtime_context().gcs_address
    return found


@dataclass(frozen=True)
class Node:
    """A host of the cluster.

    Ray's id of it, what it is called, and the cards and processors that it lends.
    """

    id: str
    name: str
    gpus: int
    cpus: int
    manager: tuple[str, int] = ("", 0)  # where Ray's process on it listens

    @property
    def told(self) -> str:
        return f"{self.gpus} GPUs" if self.gpus else f"{self.cpus} CPUs"


def alive_nodes() -> list[Node]:
    """The hosts that are there now, by name."""
    found = [
        Node(
            id=node["NodeID"],
            name=node["NodeManagerHostname"],
            gpus=int(node["Resources"].get("GPU", 0)),
            cpus=int(node["Resources"].get("CPU", 0)),
            manager=(node["NodeManagerAddress"], node["NodeManagerPort"]),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1  # a head without processors takes no work
    ]
    return sorted(found, key=lambda node: (node.name, node.id))


def has_gone(node: Node) -> bool:
    """Whether a host whose actor has died is no longer there itself.

    Ray knows it after some twenty seconds, by its silence.
    """
    try:
        if not any(one.id == node.id for one in alive_nodes()):
            return True
        socket.create_connection(node.manager, REACH_SECONDS).close()
    except OSError:
        return True
    except Exception:  # the connection to the cluster is closed: nothing is known of it
        return False
    return False


def on(node: Node) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}


def _refuse(why: str) -> None:
    raise ZooError(f"--runner ray: {why}")


def looked_at(nodes: Sequence[Node], folder: Path, refuse: Callable[[str], None] = _refuse) -> dict[str, HostFacts]:
    """What each host says of itself, by its id; those that went meanwhile are not there.

    ZooError naming the first that cannot work for this one, and why; with `refuse` that is told, and the host is not there.
    `folder` is to be seen by all.
    """
    token = folder / f".token-{secrets.token_hex(8)}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(token, secrets.token_hex(16))
    try:
        here = facts_here(token)
        asked = {node: ray.remote(facts_here).options(num_cpus=0, max_retries=0, **on(node)).remote(token) for node in nodes}
        found: dict[str, HostFacts] = {}
        for node, answer in asked.items():
            try:
                facts = _answer(node, answer)
            except ZooError as error:
                refuse(str(error))
                continue
            if facts and (fault := fault_of(facts, here, folder)):
                refuse(fault)
            elif facts:
                found[node.id] = facts
        return found
    finally:
        token.unlink(missing_ok=True)


def _answer(node: Node, answer: Any) -> HostFacts | None:
    try:
        found: HostFacts = ray.get(answer, timeout=LOOK_SECONDS)
        return found
    except GetTimeoutError:
        raise ZooError(f"{node.name}: no answer in {LOOK_SECONDS:.0f} s; look at it with `ray status`") from None
    except RayTaskError as error:
        told = str(error.cause if error.cause is not None else error).splitlines()[-1:]
        raise ZooError(
            f"{node.name}: {' '.join(told)}; install the same version of preference-zoo for Ray's Python there"
        ) from error
    except RayError:
        return None  # it went as it was asked


class RayFleet:
    """Hosts of one kind of machine, with room for copies of `gpus` cards each.

    On processors one copy a host.
    """

    def __init__(self, gpus: int, target: str | None, folder: Path) -> None:
        self._target, self._folder = target, folder
        self._slots: list[Node] = []
        self._known: set[str] = set()  # ids of hosts that were looked at
        self._facts: dict[str, HostFacts] = {}
        self._next_look = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hosts")
        self._looking: Future[tuple[Sequence[Node], dict[str, HostFacts], list[str]]] | None = None
        nodes = alive_nodes()
        self._gpus = gpus if any(node.gpus for node in nodes) else 0
        if self._gpus and not any(node.gpus >= self._gpus for node in nodes):
            there = ", ".join(f"{node.name}: {node.gpus}" for node in nodes)
            raise ZooError(f"--runner ray: a copy takes {gpus} cards of one host on {target}; the cluster has {there}")
        self._facts = looked_at(nodes, folder)
        self._kind = self._chosen_kind(nodes)
        self._add(nodes)
        self.copies = len(self._slots)

    @property
    def machine(self) -> str:
        """Of cards, those of one copy: how many others their host has says nothing of it."""
        return f"{self._gpus} x {self._kind}" if self._gpus else self._kind

    @property
    def on_gpu(self) -> bool:
        return self._gpus > 0

    def start(self, number: int, command: Sequence[str], environment: Mapping[str, str]) -> RayProcess:
        carried = {name: value for name, value in environment_of(CARRIED).items() if name not in NOT_CARRIED}
        return RayProcess(self._slots[number], self._gpus, command, {**carried, **environment})

    def joined(self, say: Say) -> int:
        """How many copies hosts have room for that came since the last look.

        Which of them cannot be used is said.
        """
        if self._looking is not None and self._looking.done():
            looked, self._looking = self._looking, None
            nodes, facts, faults = looked.result()
            for fault in faults:
                say(f"not used: {fault}")
            self._facts |= facts
            before = len(self._slots)
            self._add(nodes)
            return len(self._slots) - before
        if self._looking is None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + JOIN_SECONDS
            if new := [node for node in alive_nodes() if node.id not in self._known]:
                self._looking = self._pool.submit(self._look, new)
        return 0

    def _look(self, nodes: Sequence[Node]) -> tuple[Sequence[Node], dict[str, HostFacts], list[str]]:
        """Look at hosts that have come, beside the work: a process has to start on each, which takes seconds."""
        faults: list[str] = []
        return nodes, looked_at(nodes, self._folder, faults.append), faults

    def _chosen_kind(self, nodes: Sequence[Node]) -> str:
        """The kind of machine that the target is, else the one with room for most copies."""
        target = load_target(self._target) if self._target else None
        room: dict[str, tuple[bool, int]] = {}
        for node in nodes:
            if node.id in self._facts and self._copies_on(node):
                kind = kind_of(self._facts[node.id].machine)
                fits = target is not None and is_of_kind(f"{target.gpus} x {kind}" if self._gpus else kind, target)
                room[kind] = (fits, room.get(kind, (fits, 0))[1] + self._copies_on(node))
        if not room:
            raise ZooError("--runner ray: the cluster has no host that takes work; look at it with `ray status`")
        return max(sorted(room), key=lambda kind: room[kind])

    def _copies_on(self, node: Node) -> int:
        return node.gpus // self._gpus if self._gpus else 1

    def _add(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._known.add(node.id)
            facts = self._facts.get(node.id)
            if facts is not None and kind_of(facts.machine) == self._kind:
                self._slots += [node] * self._copies_on(node)


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
