"""The device that a stage computes on: its dtype, free memory and attention."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from zoo.targets import SHARE

CONTEXT_BYTES = 2**29  # of a CUDA context, outside of what torch allocates


def attention_options(folder: Path) -> dict[str, str]:
    """Options of `from_pretrained` for soft-capped attention logits (Gemma 2), else none.

    transformers runs attention in torch's own kernel by default, which knows no cap and leaves it out without a word (5.19);
    vLLM applies it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder).get_text_config()
    return {"attn_implementation": "eager"} if getattr(config, "attn_logit_softcapping", None) else {}


def compute_dtype() -> torch.dtype:
    """What this machine multiplies fastest without losing range.

    bfloat16 where the hardware has it, else float32 on a CPU.

    CPUs without native bfloat16 emulate it: measured on one with AVX-512 but neither AMX nor BF16, float32 products ran at
    88 GFLOP/s and bfloat16 at 34. A GPU before Ampere (a T4) has float16 only.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if processor_has_bfloat16() else torch.float32


def processor_has_bfloat16() -> bool:
    with open("/proc/cpuinfo") as file:  # noqa: PTH123
        flags = file.read()
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_bytes(place: torch.device) -> float:
    """Memory that torch can still take on a device; without limit on the CPU."""
    return room_bytes(place) - torch.cuda.memory_allocated(place) if place.type == "cuda" else float("inf")


def room_bytes(place: torch.device) -> float:
    """Memory of a GPU that torch may hold in this process.

    That is what it holds and what is free, within the process's share.
    """
    own = float(os.environ.get(SHARE, "inf")) - CONTEXT_BYTES
    return min(float(torch.cuda.mem_get_info(place)[0] + torch.cuda.memory_reserved(place)), own)


def keep_to_share() -> None:
    """Make torch take no more of this process's GPUs than `ZOO_GPU_BYTES`, where that is set.

    Then a stage that needs more than was counted fails itself, and not its neighbour on the card.
    """
    if SHARE in os.environ and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(0, int(os.environ[SHARE]) - CONTEXT_BYTES) / total))


def gpu_peak_bytes() -> int:
    """Largest GPU memory that torch allocated in this process.

    0 without a GPU, where the process's own peak is recorded.
    """
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
