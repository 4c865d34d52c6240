"""Data-parallel training: a process a GPU, one sum of gradients a step.

The processes start and end together. The model is not wrapped: its passes are autograd functions of our own, and a step's
gradients are summed once, after its last micro-batch. The processes meet by accelerate (NCCL between GPUs, gloo on a CPU).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.contracts import StageResult, TrainRequest
from zoo.errors import ZooError
from zoo.models.batches import shared
from zoo.pipeline.runners.environment import RUNNER
from zoo.stages import progress
from zoo.stages.device import device
from zoo.store import ERROR, LOG, RESULT
from zoo.targets import visible_gpus

BUCKET = 2**26  # gradient values summed at once: 256 MiB in float32
POLL_SECONDS = 0.2
REASON_SECONDS = (
    2.0  # one rank's failure ends the others' sums: wait for all errors before choosing the one that tells the cause
)


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is; the process of rank 0 alone writes."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def main_first(self) -> AbstractContextManager[Any]:
        """The block is run by rank 0 before any other."""
        if self.count == 1:
            return nullcontext()
        from accelerate import PartialState

        first: AbstractContextManager[Any] = PartialState().main_process_first()
        return first

    def share(self, costs: Sequence[float]) -> list[int]:
        """Positions of the work that is this rank's, ascending."""
        return shared(costs, self.count)[self.rank]

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor summed over all ranks, in place where it lies on the device that they talk by."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def add_up_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Every rank's gradients become the sum over ranks; a rank that had no row counts as zero."""
        if self.count == 1:
            return
        bucket: list[torch.Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and sum(g.numel() for g in bucket) + parameter.numel() > BUCKET:
                self._add_up_bucket(bucket)
                bucket = []
            bucket.append(parameter.grad)
        self._add_up_bucket(bucket)

    def _add_up_bucket(self, gradients: list[torch.Tensor]) -> None:
        flat = self.add_up(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE = Ranks()


def join() -> Ranks:
    """Meet the other processes that `launch` started.

    `ALONE` in a process that it did not start.
    """
    if "WORLD_SIZE" not in os.environ:
        return ALONE
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Ranks(state.process_index, state.num_processes)


def check_gpus(gpus: int) -> None:
    """ZooError where fewer than `gpus` GPUs are at hand."""
    found = min(torch.cuda.device_count(), len(visible_gpus()) or torch.cuda.device_count())
    if found < gpus:
        raise ZooError(f"train.gpus = {gpus}: {found} GPUs are visible here; set train.gpus = {max(1, found)}")


def launch(request: TrainRequest, out_dir: Path, processes: int) -> StageResult:
    """Run the request in so many processes to its end.

    Where one fails the others are ended, and its error is raised.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = out_dir / "ranks.json"
    path.write_text(request.model_dump_json())
    folders = [out_dir, *(out_dir / f"rank-{rank}" for rank in range(1, processes))]
    running = []
    try:
        for rank, folder in enumerate(folders):
            folder.mkdir(exist_ok=True)
            running.append(_start(path, folder, rank, processes, port))
        failed = _watch(running)
    finally:
        for process in running:
            process.kill()
            process.wait()
    if failed:
        raise _error(folders, {rank: running[rank].returncode for rank in failed})
    for leftover in folders[1:]:
        shutil.rmtree(leftover)
    path.unlink()
    return StageResult.model_validate_json((out_dir / RESULT).read_text())


def shared_folder(out_dir: Path, ranks: Ranks) -> Path:
    """The stage's own folder, as seen by the process of one rank.

    The others' logs lie in folders inside it.
    """
    return out_dir if ranks.main else out_dir.parent


def _start(path: Path, folder: Path, rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}  # else each takes all cores
    environment = {
        **threads,
        **os.environ,
        **{k: str(v) for k, v in names.items()},
        "MASTER_ADDR": "127.0.0.1",
        RUNNER: str(os.getpid()),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "zoo.stages", "train", str(path), str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=progress.terminal() if rank == 0 else subprocess.DEVNULL,
    )


def _watch(running: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The ranks that had failed a moment after the first one did; none once all have ended well."""
    while True:
        codes = [process.poll() for process in running]
        if any(codes):
            time.sleep(REASON_SECONDS)
            return [rank for rank, process in enumerate(running) if process.poll()]
        if all(code == 0 for code in codes):
            return []
        time.sleep(POLL_SECONDS)


def _error(folders: Sequence[Path], codes: Mapping[int, int]) -> Exception:
    """What to raise for the exit codes of the ranks that failed.

    A message meant for users comes before any other.
    """
    said = {rank: _said(folders[rank]) for rank in codes}
    if known := [message for message, is_known in said.values() if is_known]:
        return ZooError(known[0])
    rank, (message, _) = next(((r, m) for r, m in said.items() if m[0]), next(iter(said.items())))
    what = message or f"ended with code {codes[rank]}"
    return RuntimeError(f"the training process of rank {rank}: {what}; log: {folders[rank] / LOG}")


def _said(folder: Path) -> tuple[str, bool]:
    """The error that a stage's process left in its folder, and whether it is meant for users."""
    try:
        error = json.loads((folder / ERROR).read_text())
    except (OSError, json.JSONDecodeError):
        return "", False
    return str(error["message"]), bool(error["known"])


def device_sum(values: Any, ranks: Ranks) -> Any:
    """A float64 array summed over ranks, on the CPU again."""
    return ranks.add_up(torch.as_tensor(values, dtype=torch.float64, device=device())).cpu().numpy()
