"""GPU code inside libraries: for which compute capabilities a wheel has it.

nvcc embeds code as fatbins: a header of 16 bytes (magic, version, its own size as 16 bits, the size of what follows as 64),
then entries of a header (kind as 16 bits, its own size at offset 4, the code's size at 8, the architecture at 28) and code,
which may be compressed; headers are not. NVIDIA does not document this: the counts that it gives are in benchmarks/bundle.md.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from zoo.contracts import Contract

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER, ENTRY = struct.Struct("<IHHQ"), struct.Struct("<HHIQ")
ARCHITECTURE = 28  # offset in an entry
PTX, CUBIN = 1, 2  # kinds of entries
SMALLEST_ENTRY = 32  # bytes of its header
LIBRARY = re.compile(r"\.so(\.[0-9]+)*$")

# Libraries that scoring never launches a kernel of on compute capability 7.5, by file, and why.
NEVER_LAUNCHED = {
    "libtorch_cuda_linalg.so": "torch.linalg, which scoring does not use",
    "_vllm_fa2_C.abi3.so": "FlashAttention 2, which the engine takes from 8.0 up",
    "_vllm_fa3_C.abi3.so": "FlashAttention 3, which the engine takes on 9.0",
    "_flashmla_C.abi3.so": "FlashMLA, which the engine takes from 9.0 up",
    "_flashmla_extension_C.abi3.so": "FlashMLA, which the engine takes from 9.0 up",
    "cute_dsl_fmha_fp8_e4m3_to_bf16_hd192_sm_100a_x86_64.so": "attention of multi-head latent models on 10.0",
    "cute_dsl_fmha_fp8_e4m3_to_bf16_hd192_sm_103a_x86_64.so": "attention of multi-head latent models on 10.3",
}


class GpuLibrary(Contract):
    """A library with GPU code: its cubins and PTX, counted by architecture (75 is 7.5)."""

    wheel: str
    path: str
    cubins: dict[int, int]
    ptx: dict[int, int]

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a card of this capability can run what is in it.

        Cubins run on their own major version from their minor version on, PTX is compiled by the driver for what is as new or
        newer (CUDA C++ programming guide, "Application compatibility").
        """
        wanted = capability[0] * 10 + capability[1]
        return any(cubin // 10 == capability[0] and cubin <= wanted for cubin in self.cubins) or any(
            ptx <= wanted for ptx in self.ptx
        )


def gpu_libraries(wheel: Path, *, read: Callable[[int], object] = lambda _: None) -> list[GpuLibrary]:
    """The libraries of a wheel that have GPU code.

    `read` is told how many bytes of the wheel more were looked at.

    zipfile.BadZipFile where the wheel is damaged.
    """
    found = []
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if LIBRARY.search(member.filename):
                counts = code_of(archive.read(member))
                by_kind = {kind: {arch: n for (k, arch), n in sorted(counts.items()) if k == kind} for kind in (CUBIN, PTX)}
                if any(by_kind.values()):
                    found.append(GpuLibrary(wheel=wheel.name, path=member.filename, cubins=by_kind[CUBIN], ptx=by_kind[PTX]))
            read(member.compress_size)
    return found


def lacking(libraries: list[GpuLibrary], capability: tuple[int, int]) -> list[GpuLibrary]:
    """Those that a card of this capability cannot run and that scoring may need."""
    turing = capability == (7, 5)
    return [
        library for library in libraries if not library.runs_on(capability) and not (turing and library.file in NEVER_LAUNCHED)
    ]


def code_of(data: bytes) -> Counter[tuple[int, int]]:
    """How many entries of each (kind, architecture) the fatbins in a library have."""
    found: Counter[tuple[int, int]] = Counter()
    at = data.find(MAGIC)
    while at >= 0:
        end = _end_of_fatbin(data, at)
        if end is not None:
            found.update(_entries(data, at + HEADER.unpack_from(data, at)[2], end))
        at = data.find(MAGIC, end or at + len(MAGIC))
    return found


def _end_of_fatbin(data: bytes, at: int) -> int | None:
    """Where the fatbin that begins here ends; None where the magic number is there by chance."""
    if at + HEADER.size > len(data):
        return None
    _, version, header, size = HEADER.unpack_from(data, at)
    end: int = at + header + size
    return end if version == 1 and header >= HEADER.size and end <= len(data) else None


def _entries(data: bytes, at: int, end: int) -> list[tuple[int, int]]:
    """Kind and architecture of each entry between two places."""
    found = []
    while at + SMALLEST_ENTRY <= end:
        kind, _, header, size = ENTRY.unpack_from(data, at)
        if header < SMALLEST_ENTRY:
            break
        found.append((kind, struct.unpack_from("<I", data, at + ARCHITECTURE)[0]))
        at += header + size
    return found
