"""What the machine does while a stage runs, under the names of MLflow's own system metrics."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

MEBIBYTE = 2**20
ASKED_SECONDS = 2.0  # for nvidia-smi
QUERY = "--query-gpu=index,utilization.gpu,memory.used"


def machine_lines(seconds: float) -> list[dict[str, Any]]:
    """Points of now, as a stage's own lines are: processors, memory and GPUs.

    `seconds` since the stage began are their step.
    """
    now = time.time()
    return [{"name": f"system/{name}", "step": int(seconds), "value": value, "time": now} for name, value in _now()]


def _now() -> Iterator[tuple[str, float]]:
    import psutil

    memory = psutil.virtual_memory()
    yield "cpu_utilization_percentage", psutil.cpu_percent()
    yield "system_memory_usage_megabytes", memory.used / MEBIBYTE
    yield "system_memory_usage_percentage", memory.percent
    for index, busy, used in _gpus():
        yield f"gpu_{index}_utilization_percentage", busy
        yield f"gpu_{index}_memory_usage_megabytes", used


def _gpus() -> Iterator[tuple[int, float, float]]:
    """Number, utilization in percent and memory in use in MiB of each GPU; none where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        command = [tool, QUERY, "--format=csv,noheader,nounits"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=ASKED_SECONDS, check=True).stdout
        for line in told.splitlines():
            index, busy, used = line.split(",")
            yield int(index), float(busy), float(used)
