"""Target machines as data (`zoo/machines/NAME.toml`), the machine at hand, and what of an entry fits a target."""

from __future__ import annotations

import csv
import functools
import os
import platform
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from zoo.contracts import Contract, Name, Positive
from zoo.errors import ZooError

Dtype = Literal["float16", "bfloat16", "float32"]


class Target(Contract):
    """A machine to predict on. Bytes are those of one GPU; without GPUs, of the machine, and None is the machine at hand."""

    name: Name
    description: str = ""
    gpus: Annotated[int, Field(ge=0)]
    memory_bytes: Positive | None = None
    usable_bytes: Positive | None = Field(None, description="what the driver leaves to a process")
    compute_capability: tuple[int, int] | None = Field(None, description="(7, 5) is Turing, (8, 0) Ampere, (9, 0) Hopper")
    dtypes: tuple[Dtype, ...]
    interconnect: Literal["none", "pcie", "nvlink"] = "none"
    margin: Annotated[float, Field(ge=1)] = Field(description="predicted seconds are multiplied by this before they must fit")

    @property
    def devices(self) -> int:
        """How many members can run side by side: GPUs, or the one CPU."""
        return max(1, self.gpus)

    @property
    def device_bytes(self) -> int:
        """Bytes one device offers to a process."""
        return self.usable_bytes or self.memory_bytes or host_memory_bytes()


def load_target(name: str) -> Target:
    """The target of that name, or of a TOML file's path. ZooError names the known ones."""
    path = Path(name) if name.endswith(".toml") else _folder() / f"{name}.toml"
    if not path.is_file():
        raise ZooError(f"no target {name!r}; known: {', '.join(p.stem for p in sorted(_folder().glob('*.toml')))}")
    from zoo.entries_io import explain

    try:
        return Target.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise ZooError(f"{path}: {explain(error, Target)}") from error


def list_targets() -> list[Target]:
    """All targets that come with the package, by name."""
    return [load_target(path.stem) for path in sorted(_folder().glob("*.toml"))]


def _folder() -> Path:
    return Path(__file__).parent / "machines"


# --- the machine at hand ---------------------------------------------------------------------------------------------


@functools.cache
def machine_fingerprint() -> str:
    """What a measurement's speed depends on, as one stable line: GPUs, else processor, cores and memory. No host names."""
    gpus = _gpu_names()
    if gpus:
        return " + ".join(f"{gpus.count(gpu)} x {gpu}" for gpu in sorted(set(gpus)))
    return f"{_processor_name()}, {_cores()} cores, {round(host_memory_bytes() / 2**30)} GiB"


def host_memory_bytes() -> int:
    """Memory of the machine, or less where a control group allows less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read_cgroup("memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def _cores() -> int:
    """Processors this process may use: those of the machine, or the quota of its control group, rounded up."""
    quota, _, period = _read_cgroup("cpu.max").partition(" ")
    available = os.cpu_count() or 1
    return min(available, -(-int(quota) // int(period))) if quota.isdigit() and period.isdigit() else available


def _read_cgroup(name: str) -> str:
    path = Path("/sys/fs/cgroup") / name
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    """`NAME, MEMORY MiB` of each NVIDIA GPU, by the driver's own tool; none where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [" ".join(cell.strip() for cell in row) for row in csv.reader(answer.splitlines()) if row]
