"""A fleet of the ray runner: hosts of one kind of machine, with room for copies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.runners.environment import environment_of
from zoo.pipeline.runners.hosts import HostFacts, kind_of
from zoo.pipeline.runners.ray import CARRIED, NOT_CARRIED, Node, alive_nodes, looked_at
from zoo.pipeline.runners.ray_process import RayProcess
from zoo.targets import is_of_kind, load_target

JOIN_SECONDS = 5.0  # between two looks at who has come


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
            mend = f'set layout = "replicas" in [serve.{target}], or add a host of {gpus}'
            raise ZooError(f"--runner ray: a copy takes {gpus} cards of one host on {target}; the cluster has {there}; {mend}")
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
