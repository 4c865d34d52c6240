"""The ray runner: the connection to a cluster, and its hosts.

Engines are in actors of a fleet (`ray_fleet`, `ray_process`), trainings in those of a job (`ray_workers`).
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from zoo.pipeline.runners.environment import RUNNER
from zoo.pipeline.runners.hosts import HostFacts, facts_here, fault_of
from zoo.store import write_atomic
from zoo.targets import SHARE

_is_own = False  # whether the cluster is of this process alone, and ends with it
LOOK_SECONDS = 120.0  # for a host to answer what it is: a worker process has to start there
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
    global _is_own
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
    _is_own = given is None
    try:
        yield
    finally:
        ray.shutdown()
        _is_own = False


def is_own_cluster() -> bool:
    """Whether the cluster was started by this process, and ends with it."""
    return _is_own


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


def looked_at(
    nodes: Sequence[Node], folder: Path, refuse: Callable[[str], None] = _refuse, *, files: Sequence[Path] = ()
) -> dict[str, HostFacts]:
    """What each host says of itself, by its id; those that went meanwhile are not there.

    ZooError naming the first that cannot work for this one, and why; with `refuse` that is told, and the host is not there.
    `folder`, and `files` beside it, are to be seen by all.
    """
    token = folder / f".token-{secrets.token_hex(8)}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(token, secrets.token_hex(16))
    try:
        here = facts_here(token, files)
        ask: Any = ray.remote(facts_here)
        asked = {node: ask.options(num_cpus=0, max_retries=0, **on(node)).remote(token, files) for node in nodes}
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
