"""Measure the machine's rates: matmul by dtype, memory, host to device, disk.

Half a minute in all.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from zoo.stages.device import device
from zoo.targets import Dtype, Rates

SECONDS = 2.0  # for each rate: long enough for a card to reach the clock that it can keep
BLOCK_BYTES = 2**28
READ_BYTES = 2**30  # of a file that is there
HEADS, HEAD_DIM, ATTENTION_TOKENS = 32, 128, 1024  # of Llama 3 8B, and a long battle


def measure_rates(folder: Path) -> Rates:
    """Rates of one GPU, or of the processors where there is none.

    `folder`: on the disk whose reading is timed.
    """
    where = device()
    matmul = {dtype: matmul_rate(getattr(torch, dtype), where) for dtype in supported_dtypes()}
    return Rates(
        matmul_flop_per_second={dtype: rate for dtype, rate in matmul.items() if rate},
        memory_bytes_per_second=memory_rate(where),
        host_to_device_bytes_per_second=host_to_device_rate(where) if where.type == "cuda" else None,
        disk_bytes_per_second=disk_rate(folder),
    )


def quick_rates(folder: Path, file: Path | None = None) -> Rates:
    """What a forecast of scoring needs most: matmul, attention and loading.

    In the dtype that is served in, in some 20 s. `folder`, or the `file` that is to be read: on the disk whose reading is
    timed.
    """
    where = device()
    name: Dtype = "float16" if where.type == "cuda" else "float32"
    matmul = matmul_rate(getattr(torch, name), where)
    return Rates(
        matmul_flop_per_second={name: matmul} if matmul else {},
        attention_flop_per_second=attention_rate(getattr(torch, name), where),
        host_to_device_bytes_per_second=host_to_device_rate(where) if where.type == "cuda" else None,
        disk_bytes_per_second=disk_rate(folder) if file is None else read_rate(file, READ_BYTES),
    )


def supported_dtypes() -> tuple[Dtype, ...]:
    """Dtypes that this machine multiplies matrices in.

    bfloat16 only where a GPU has it in hardware.
    """
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ("float16", "float32")
    return ("float16", "bfloat16", "float32")


def compute_capability() -> tuple[int, int] | None:
    """Of the first GPU; None without one."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def matmul_rate(dtype: torch.dtype, where: torch.device) -> float | None:
    """Operations a second of dense square products (2 n^3 each), kept up for SECONDS.

    None where the dtype is not supported. n is doubled until a product takes a 50th of the time or 8192 is reached: small
    products measure launches.
    """
    n = 256
    while True:
        try:
            a, b = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))
            torch.mm(a, b)
        except RuntimeError:
            return None
        seconds = 1 / repeated(lambda a=a, b=b: torch.mm(a, b), where, SECONDS / 20)  # type: ignore[misc]
        if n == 8192 or seconds > SECONDS / 50:
            return 2 * n**3 * repeated(lambda a=a, b=b: torch.mm(a, b), where, SECONDS)  # type: ignore[misc]
        n *= 2


def attention_rate(dtype: torch.dtype, where: torch.device) -> float:
    """Operations a second of torch's causal attention, over one row of 1,024 tokens.

    With the heads of Llama 3 8B. 2 n^2 d a head, masked pairs not counted, as `zoo.models.shapes` counts.
    """
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v = (torch.randn(1, HEADS, ATTENTION_TOKENS, HEAD_DIM, device=where).to(dtype) for _ in range(3))
    times = repeated(lambda: scaled_dot_product_attention(q, k, v, is_causal=True), where, SECONDS)
    return 2 * ATTENTION_TOKENS**2 * HEAD_DIM * HEADS * times


def memory_rate(where: torch.device) -> float:
    """Bytes a second that a copy within the memory moves, read and written both counted."""
    source = torch.zeros(BLOCK_BYTES, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    return 2 * BLOCK_BYTES * repeated(lambda: target.copy_(source), where, SECONDS / 2)


def host_to_device_rate(where: torch.device) -> float:
    """Bytes a second from page-locked memory of the host to the GPU."""
    source = torch.zeros(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(BLOCK_BYTES, dtype=torch.uint8, device=where)
    return BLOCK_BYTES * repeated(lambda: target.copy_(source, non_blocking=True), where, SECONDS / 2)


def disk_rate(folder: Path) -> float | None:
    """Bytes a second of reading a file that the system has been told to forget.

    None where it cannot be told.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(os.urandom(BLOCK_BYTES))
        file.flush()
        os.fsync(file.fileno())
        return read_rate(Path(file.name), BLOCK_BYTES)


def read_rate(path: Path, most: int) -> float | None:
    """Bytes a second of reading up to `most` bytes of a file.

    The system has been told to forget it. None where it cannot be told, or the file is empty.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    with path.open("rb", buffering=0) as reader:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started, size = time.perf_counter(), 0
        while size < most and (block := reader.read(2**23)):
            size += len(block)
        return size / (time.perf_counter() - started) if size else None


def repeated(work: Callable[[], object], where: torch.device, seconds: float) -> float:
    """How many times a second `work` is done when repeated for about so long.

    The first time is left out.
    """

    def wait() -> None:
        if where.type == "cuda":
            torch.cuda.synchronize()

    work()
    wait()
    started, done, batch = time.perf_counter(), 0, 1
    while True:
        for _ in range(batch):
            work()
        wait()
        done += batch
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return done / elapsed
        # GPU work is queued: wait seldom, but not past the time.
        batch = max(1, min(2 * batch, int(done * (seconds - elapsed) / elapsed)))
