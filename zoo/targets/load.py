"""Read target machines from TOML files, the package's and the user's own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from zoo.contracts import Contract, Name, Positive
from zoo.errors import ZooError
from zoo.settings import home, read_toml
from zoo.targets.machine import host_memory_bytes

Dtype = Literal["float16", "bfloat16", "float32"]
Rate = Annotated[float, Field(gt=0)]
_GPUS = re.compile(r"(?P<count>\d+) x (?P<name>.+) (?P<mebibytes>\d+) MiB")  # as `machine_fingerprint` names GPUs


class Rates(Contract):
    """How fast a machine is, of one GPU (without GPUs, of the machine). None: not known."""

    matmul_flop_per_second: dict[Dtype, Rate] = Field({}, description="dense matrix products, by dtype")
    attention_flop_per_second: Rate | None = Field(None, description="causal attention, masked pairs not counted")
    memory_bytes_per_second: Rate | None = Field(None, description="reading and writing device memory")
    host_to_device_bytes_per_second: Rate | None = Field(None, description="from the host's memory to a GPU's")
    disk_bytes_per_second: Rate | None = Field(None, description="reading a file that was not read before")


class Target(Contract):
    """A machine to predict on.

    Bytes are those of one GPU; without GPUs, of the machine, and None is the machine at hand.
    """

    name: Name = Field(description="what commands call it; the name of the file")
    description: str = Field("", description="one line for lists")
    gpus: Annotated[int, Field(ge=0)] = Field(description="how many; 0: a machine without")
    memory_bytes: Positive | None = Field(None, description="of one GPU, as its data sheet has it")
    usable_bytes: Positive | None = Field(None, description="what the driver leaves to a process")
    compute_capability: tuple[int, int] | None = Field(None, description="(7, 5) is Turing, (8, 0) Ampere, (9, 0) Hopper")
    dtypes: tuple[Dtype, ...] = Field(description="in which the machine multiplies matrices")
    interconnect: Literal["none", "pcie", "nvlink"] = Field("none", description="between its GPUs")
    margin: Annotated[float, Field(ge=1)] = Field(description="predicted seconds are multiplied by this before they must fit")
    engine: str = Field("", description="version of vLLM that is run there; empty: the one that is installed here")
    gpu: str = Field("", description="a part of the name that the driver gives the GPU, e.g. T4; empty: told by memory alone")
    declared: Rates = Field(Rates(), description="rates of the data sheet")
    measured: Rates = Field(Rates(), description="rates that `zoo target measure` found")
    measured_on: str = Field("", description="fingerprint of the machine that was measured")

    @property
    def devices(self) -> int:
        """How many members can run side by side: GPUs, or the one CPU."""
        return max(1, self.gpus)

    @property
    def device_bytes(self) -> int:
        """Bytes one device offers to a process."""
        return self.usable_bytes or self.memory_bytes or host_memory_bytes()


PACKAGE_FOLDER = Path(__file__).parent  # the TOML files lie beside this module


def target_folders() -> tuple[Path, ...]:
    """Folders searched for NAME.toml, later ones first.

    The package's own, `ZOO_HOME/targets`, each of `ZOO_TARGETS`.
    """
    given = os.environ.get("ZOO_TARGETS", "").split(os.pathsep)
    return (PACKAGE_FOLDER, own_folder(), *(Path(path) for path in given if path))


def own_folder() -> Path:
    """Where `zoo target measure NAME` writes."""
    return home() / "targets"


def load_target(name: str) -> Target:
    """The target of that name, the user's before the package's, or of a TOML file's path.

    ZooError names the known ones.
    """
    path = Path(name) if name.endswith(".toml") else target_files().get(name)
    if path is None or not os.path.lexists(path):
        raise ZooError(f"no target {name!r}; known: {', '.join(target_files())}")
    target = read_toml(path, Target)
    if target.name != path.stem:
        raise ZooError(f'{path}: name = "{target.name}" differs from the file name; rename one of them')
    return target


def target_files() -> dict[str, Path]:
    """Every target's name and file, by name."""
    found = {path.stem: path for folder in target_folders() for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def list_targets() -> list[Target]:
    """All targets that can be read, by name."""
    return read_targets()[0]


def read_targets() -> tuple[list[Target], dict[str, ZooError]]:
    """All targets by name, and what is wrong with the files of others.

    One that is broken must not hide the rest.
    """
    targets: list[Target] = []
    broken: dict[str, ZooError] = {}
    for name in target_files():
        try:
            targets.append(load_target(name))
        except ZooError as error:
            broken[name] = error
    return targets, broken


def is_of_kind(machine: str, target: Target) -> bool:
    """Whether a machine's fingerprint is of the target's kind.

    As many GPUs, by name where the target gives one, else each with its memory within a tenth; without GPUs, any machine that
    has none. A machine that emulated another (`... as t4x2`) matches no target.
    """
    if " as " in machine:
        return False
    gpus = [found for part in machine.split(" + ") if (found := _GPUS.fullmatch(part))]
    if sum(int(found["count"]) for found in gpus) != target.gpus:
        return False
    if target.gpu:
        return all(re.search(rf"\b{re.escape(target.gpu)}\b", found["name"]) for found in gpus)
    sizes = [float(found["mebibytes"]) * 2**20 for found in gpus]  # drivers show up to 7 % less than the data sheet
    return target.memory_bytes is None or all(abs(size / target.memory_bytes - 1) < 0.1 for size in sizes)


def matmul_rate(target: Target) -> tuple[float, bool] | None:
    """Operations a second of one device in its fastest dtype, and whether that was measured.

    None where it is not known.
    """
    for rates, is_measured in ((target.measured, True), (target.declared, False)):
        found = [rate for dtype, rate in rates.matmul_flop_per_second.items() if dtype in target.dtypes]
        if found:
            return max(found), is_measured
    return None
