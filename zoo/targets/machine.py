"""The machine at hand: fingerprint, GPUs, cores, memory, and the age of this process."""

from __future__ import annotations

import csv
import functools
import itertools
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARE = "ZOO_GPU_BYTES"  # of each GPU, what a stage may take: others are at work on the same one


@functools.cache
def machine_fingerprint() -> str:
    """What a measurement's speed depends on, as one stable line.

    GPUs, else processor, cores and memory. No host names.
    """
    gpus = gpu_names()
    if gpus:
        return " + ".join(f"{gpus.count(gpu)} x {gpu}" for gpu in sorted(set(gpus)))
    return f"{_processor_name()}, {_cores()} cores, {round(host_memory_bytes() / 2**30)} GiB"


def host_memory_bytes() -> int:
    """Memory of the machine, or less where a control group allows less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read_cgroup("memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def _cores() -> int:
    """Processors this process may use.

    Those of the machine, or the quota of its control group, rounded up.
    """
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


def gpu_names() -> list[str]:
    """`NAME, MEMORY MiB` of each NVIDIA GPU of the machine, visible to this process or not.

    None where there is no driver.
    """
    rows = csv.reader(_ask_driver("name,memory.total").splitlines())
    return [" ".join(cell.strip() for cell in row) for row in rows if row]


def visible_gpus() -> tuple[str, ...]:
    """GPUs this process may use, by the names CUDA_VISIBLE_DEVICES takes.

    None on a machine without NVIDIA's driver. CUDA's list ends before the first name that is none, be it empty or -1 (CUDA C++
    Programming Guide, environment variables).
    """
    if VISIBLE in os.environ:
        names = (name.strip() for name in os.environ[VISIBLE].split(","))
        return tuple(itertools.takewhile(lambda name: name.isdigit() or name.startswith(("GPU-", "MIG-")), names))
    return tuple(_ask_driver("index").split())


def gpu_uuids() -> dict[str, str]:
    """The UUID of each of the machine's GPUs, by its index."""
    rows = (row.split(", ") for row in _ask_driver("index,uuid").splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def free_gpu_bytes() -> dict[str, int]:
    """Free memory of the machine's GPUs by UUID, as far as the driver tells it."""
    rows = (row.split(", ") for row in _ask_driver("uuid,memory.free").splitlines())
    return {row[0]: int(row[1].split()[0]) << 20 for row in rows if len(row) == 2 and row[1].split()[0].isdigit()}


def only_gpus(names: Iterable[str]) -> dict[str, str]:
    """What to set in the environment of a process that is to see these GPUs alone.

    Nothing where there are none.
    """
    listed = ",".join(names)
    return {VISIBLE: listed} if listed else {}


def _ask_driver(query: str) -> str:
    """What NVIDIA's own tool says of each GPU, a line each; empty where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def process_age_seconds() -> float:
    """Seconds since this process started, by the kernel's clock.

    It tells what a stage's start-up cost before its first row. psutil's `create_time` counts from the boot in whole seconds of
    a clock that can be set, too rough for a deadline.
    """
    try:
        with open("/proc/self/stat") as file:  # noqa: PTH123
            start_ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    except OSError:
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")
