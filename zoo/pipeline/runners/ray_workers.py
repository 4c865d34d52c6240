"""Workers of a job on a Ray cluster: an actor a worker, with the cards that its tasks take.

An actor keeps one process at work on its host (`python -m zoo.experiments.jobs.worker`), starts it again where it was killed,
and ends once it has nothing left to do. What is done and by whom the workers settle among themselves, in the job's folder. On
a cluster that was there before, actors outlive the command that made them, and Ray makes those of a lost host anew elsewhere.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zoo.errors import ZooError
from zoo.pipeline.runners.chosen import CHOSEN
from zoo.pipeline.runners.environment import NOT_OF_STAGES, RUNNER, environment_of
from zoo.pipeline.runners.hosts import HostFacts
from zoo.pipeline.runners.ray import (
    CARRIED,
    NOT_CARRIED,
    OWN_PYTHON,
    SET_BY_RAY,
    Node,
    alive_nodes,
    is_own_cluster,
    looked_at,
)
from zoo.settings import home
from zoo.store.leases import forget

NAMESPACE = "preference-zoo"  # of Ray's names: whoever is connected finds the actors of a job by it
LEAVE_SECONDS = 30.0  # for a stage to end as by Ctrl-C: twice its grace, and what its worker logs
STARTS = 5  # of one worker's process by its actor, and of one worker's actor by a command


class Keeper:
    """The actor: keeps a worker's process at work, and ends with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], leases: Path, logs: Path) -> None:
        self._me = ray.get_runtime_context().current_actor
        self._words = [sys.executable if word == OWN_PYTHON else word for word in command]
        os.environ.pop(SET_BY_RAY, None)
        self._environment = {**os.environ, **environment, RUNNER: str(os.getpid())}
        self._leases, self._logs = leases, logs
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Have the worker leave its task to others, and wait for it.

        This actor ends with it.
        """
        if self._process is not None:
            self._process.terminate()
        self._thread.join()

    def _keep(self) -> None:
        try:
            for _ in range(STARTS):
                if self._run() >= 0:  # else it was killed
                    break
        finally:
            ray.kill(self._me, no_restart=True)

    def _run(self) -> int:
        """Start the process, and wait for it; its exit code, negative for a signal."""
        host = socket.gethostname()
        with (self._logs / f"{host}.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                self._words, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        code = process.wait()
        forget(self._leases, f"{host}-{process.pid}-")
        return code


def worker_environment() -> dict[str, str]:
    """What of this process's environment workers get.

    Where the home is, and where stages are logged to, among it.
    """
    carried = environment_of((*CARRIED, "MLFLOW_*"))
    kept = {name: value for name, value in carried.items() if name not in (*NOT_CARRIED, *NOT_OF_STAGES)}
    return {**kept, "ZOO_HOME": str(home()), CHOSEN: "local"}


class RayWorkers:
    """The workers of one job on the cluster that this process is connected to."""

    def __init__(
        self,
        job: str,
        command: Sequence[str],
        store: Path,
        *,
        leases: Path,
        logs: Path,
        files: Sequence[Path],
        say: Callable[[str], None],
    ) -> None:
        """`files`: what workers read outside the store."""
        self._job, self._command, self._store, self._files, self._say = job, command, store, files, say
        self._say_once = functools.cache(say)
        self._leases, self._logs = leases, logs
        self._facts: dict[str, HostFacts] = {}
        self._known: set[str] = set()
        self._starts: Counter[str] = Counter()
        self._handles: dict[str, Any] = {}  # of a cluster of this process alone: an actor ends with its last handle

    def begin(self, wanted: Mapping[int, int]) -> None:
        """Look at every host, then start workers.

        ZooError, before any is started, for a host that cannot be used.
        """
        nodes = alive_nodes()
        self._facts = looked_at(nodes, self._store, files=self._files)
        self._known = {node.id for node in nodes}
        self._start(nodes, wanted)

    def keep_up(self, wanted: Mapping[int, int]) -> bool:
        """Start workers on hosts that came, and in the place of those that went.

        `wanted`: chains with work left, by the cards that it takes. False where nobody is at work, and nobody can be had.
        """
        try:
            nodes = alive_nodes()
            if new := [node for node in nodes if node.id not in self._known]:
                self._facts |= looked_at(new, self._store, lambda fault: self._say(f"not used: {fault}"), files=self._files)
                self._known.update(node.id for node in new)  # else it is looked at again
            return self._start(nodes, wanted) > 0
        except RayError as error:  # which is no sign that nobody is at work
            self._say_once(f"the Ray cluster does not answer just now ({type(error).__name__}); it is asked again")
            return True

    def end(self) -> None:
        """Have workers leave their tasks where the cluster ends with this process.

        Killed, they would count as having died. Those of any other cluster work on.
        """
        if is_own_cluster() and self._handles:
            asked = [handle.leave.remote() for handle in self._handles.values()]
            with suppress(RayError):
                ray.wait(asked, num_returns=len(asked), timeout=LEAVE_SECONDS)

    def _start(self, nodes: Sequence[Node], wanted: Mapping[int, int]) -> int:
        there = workers_of(self._job)
        for name, node, gpus in places(self._job, [node for node in nodes if node.id in self._facts], wanted):
            if name not in there and self._starts[name] < STARTS:
                self._starts[name] += 1
                self._handles[name] = self._actor(name, node, gpus)
                there.add(name)
        return len(there)

    def _actor(self, name: str, node: Node, gpus: int) -> Any:
        keeper: Any = ray.remote(Keeper)
        room = {"num_gpus": gpus, "num_cpus": 0} if gpus else {"num_cpus": node.cpus}
        return keeper.options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime=None if is_own_cluster() else "detached",
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=True),
            **room,
        ).remote([*self._command], worker_environment(), self._leases, self._logs)


def check_cards(cards: Mapping[str, int]) -> None:
    """ZooError naming the hosts where none has the cards that a task takes.

    `cards`: of each task, by what people call it.
    """
    nodes = alive_nodes()
    most = max((node.gpus for node in nodes), default=0)
    large = max(cards, key=lambda name: cards[name])
    if most and cards[large] > most:
        there = ", ".join(f"{node.name}: {node.gpus}" for node in nodes)
        mend = f"set train.gpus = {most} or less, or add a host of {cards[large]}"
        raise ZooError(f"--runner ray: {large} takes {cards[large]} cards of one host; the cluster has {there}; {mend}")


def workers_of(job: str) -> set[str]:
    """Names of a job's actors that are at work, or wait for room."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return {one["name"] for one in named if one["namespace"] == NAMESPACE and one["name"].startswith(f"{job}/")}


def places(job: str, nodes: Sequence[Node], wanted: Mapping[int, int]) -> list[tuple[str, Node, int]]:
    """Where workers may run: name, host, and cards.

    As many as there is room and work for, those that take many cards first. On processors one a host, which it takes whole.
    """
    if not any(node.gpus for node in nodes):
        return [(f"{job}/{node.id}/0", node, 0) for node in nodes[: sum(wanted.values())]]
    room, taken = {node.id: node.gpus for node in nodes}, Counter[str]()
    found = []
    for cards in sorted(wanted, reverse=True):
        for _ in range(wanted[cards]):
            gpus = max(1, cards)  # what takes none is done beside the others'
            node = max(nodes, key=lambda node: room[node.id])
            if room[node.id] < gpus:
                break
            room[node.id] -= gpus
            found.append((f"{job}/{node.id}/{gpus}x{taken[node.id]}", node, gpus))
            taken[node.id] += 1
    return found
