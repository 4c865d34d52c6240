"""The device that a stage computes on: its dtype, free memory and attention."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.models.encoders import FAMILIES
from zoo.targets import SHARE, Target
from zoo.targets.capabilities import AMPERE, Capability

CONTEXT_BYTES = 2**29  # of a CUDA context, outside of what torch allocates
EFFICIENT = "zoo_memory_efficient"  # the name of `efficient_attention` among transformers' own

_emulated: list[Target] = []  # the target that this process stands for, within `emulating`


@contextmanager
def emulating(target: Target | None) -> Iterator[None]:
    """Within the block this process's GPU stands for a smaller one (`zoo train --as t4`).

    It computes in the target's 16 bits, with the attention that its capability has, and torch takes no more than the target's
    usable bytes. What comes out is the target's loss and whether its memory suffices; speed is not its. None: as it is.
    ZooError where there is no GPU here, or none there to stand for.
    """
    if target is None:
        yield
        return
    if target.compute_capability is None:
        raise ZooError(f"--as {target.name}: it has no GPU; give a target that has one")
    if not torch.cuda.is_available():
        raise ZooError(f"--as {target.name}: no GPU is visible here; run it on a machine that has one")
    total = torch.cuda.get_device_properties(device()).total_memory
    if total < target.device_bytes:
        raise ZooError(f"--as {target.name}: this card has {total} bytes, fewer than the {target.device_bytes} to stand for")
    _emulated.append(target)
    try:
        yield
    finally:
        _emulated.remove(target)


def capability() -> Capability | None:
    """Compute capability of this process's GPU, or of that which it stands for.

    None on processors.
    """
    if _emulated:
        return _emulated[-1].compute_capability
    return torch.cuda.get_device_capability(device()) if torch.cuda.is_available() else None


def attention_options(folder: Path) -> dict[str, str]:
    """Options of `from_pretrained` for the attention that a model and this GPU need, else none.

    Soft-capped attention logits (Gemma 2): transformers runs attention in torch's own kernel by default, which knows no cap and
    leaves it out without a word (5.19); vLLM applies it. GPUs before Ampere: see `efficient_attention`.
    """
    from transformers import AutoConfig

    return attention_of(AutoConfig.from_pretrained(folder))


def attention_of(config: Any) -> dict[str, str]:
    """The same of a model's config."""
    if getattr(config, "model_type", None) in FAMILIES:  # both directions: transformers' own choice, plain products for DeBERTa
        return {}
    config = config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        return {"attn_implementation": "eager"}
    found = capability()
    return {"attn_implementation": efficient_attention()} if found is not None and found < AMPERE else {}


def efficient_attention() -> str:
    """Make attention by torch's memory-efficient kernel known to transformers; its name there.

    Flash attention starts at 8.0 (Ampere). Where it is missing, transformers' `sdpa` asks for grouped heads, which the
    memory-efficient kernel (Rabe and Staats 2021, arXiv 2112.05682) does not take: torch falls back to plain products, whose
    (heads, tokens, tokens) scores are kept for the backward pass. Here keys and values are repeated for their heads instead.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(EFFICIENT, _efficient_attention)
    AttentionMaskInterface.register(EFFICIENT, sdpa_mask)
    return EFFICIENT


def _efficient_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of (batch, heads, tokens, head size) as transformers calls it; (batch, tokens, heads, head size)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    groups = query.shape[1] // key.shape[1]
    key, value = (t if groups == 1 else t.repeat_interleave(groups, dim=1) for t in (key, value))
    options: dict[str, Any] = {"attn_mask": attention_mask, "dropout_p": dropout, "scale": scaling}
    options["is_causal"] = attention_mask is None and query.shape[2] > 1
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, **options)
    return out.transpose(1, 2).contiguous(), None


def compute_dtype() -> torch.dtype:
    """What this machine multiplies fastest without losing range.

    bfloat16 where the hardware has it, else float32 on a CPU.

    CPUs without native bfloat16 emulate it: measured on one with AVX-512 but neither AMX nor BF16, float32 products ran at
    88 GFLOP/s and bfloat16 at 34. A GPU before Ampere (a T4) has float16 only.
    """
    if _emulated:
        return torch.bfloat16 if "bfloat16" in _emulated[-1].dtypes else torch.float16
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
    return min(float(torch.cuda.mem_get_info(place)[0] + torch.cuda.memory_reserved(place)), _share() - CONTEXT_BYTES)


def _share() -> float:
    """Bytes of each GPU that this process may take, its CUDA context among them; infinite where nobody says."""
    return min([float(os.environ.get(SHARE, "inf")), *(float(target.device_bytes) for target in _emulated)])


def keep_to_share() -> None:
    """Make torch take no more of this process's GPUs than its share.

    That is `ZOO_GPU_BYTES`, or the memory of the target that it stands for. Then a stage that needs more than was counted
    fails itself, and not its neighbour on the card.
    """
    if _share() < float("inf") and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, _share() - CONTEXT_BYTES) / total))


def gpu_peak_bytes() -> int:
    """Largest GPU memory that torch allocated in this process.

    0 without a GPU, where the process's own peak is recorded.
    """
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
