"""Emulation of a smaller GPU (`--as t4x2`): its memory, dtypes and kernels.

What comes out is the numbers that the target would give, and whether its memory suffices: more than the target's usable bytes
raises the allocator's own out-of-memory error. Speed is neither the target's nor this machine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.contracts import ServeSpec
from zoo.errors import ZooError
from zoo.targets import Target
from zoo.targets.capabilities import AMPERE, HOPPER

CAP = "memory_cap_bytes"  # in vLLM's additional_config
# What vLLM takes for 4-bit weights before Marlin (7.5), where the capability allows (kernels/linear/mixed_precision).
NEWER_KERNELS = {"CutlassW4A8LinearKernel": HOPPER, "MacheteLinearKernel": HOPPER}


def emulation_environment(target: Target) -> dict[str, str]:
    """Settings that vLLM reads from the environment.

    Kernels that the target's capability does not have.
    """
    capability = target.compute_capability or (0, 0)
    disabled = [name for name, needed in NEWER_KERNELS.items() if capability < needed]
    return {"VLLM_DISABLED_KERNELS": ",".join(disabled)} if disabled else {}


def emulation_arguments(target: Target, serve: ServeSpec, arguments: Mapping[str, Any], on_gpu: bool) -> dict[str, Any]:
    """vLLM's arguments changed to those of the target.

    ZooError where it has no GPU to emulate, or a dtype it lacks.
    """
    if target.compute_capability is None or target.device_bytes is None:
        raise ZooError(f"--as {target.name}: it has no GPU; give a target that has one")
    if not on_gpu:
        raise ZooError(f"--as {target.name}: no GPU is visible here; run it on a machine that has one")
    dtype = arguments["dtype"]
    if dtype == "auto":
        dtype = "auto" if "bfloat16" in target.dtypes else "float16"
    elif dtype not in target.dtypes:
        raise ZooError(f'--as {target.name}: it has no {dtype}; set serve.{target.name}.dtype = "{target.dtypes[0]}"')
    changed = {
        **arguments,
        "dtype": dtype,
        "additional_config": {CAP: min(target.device_bytes, serve.gpu_memory_bytes or target.device_bytes)},
    }
    if target.compute_capability < AMPERE:
        changed["attention_backend"] = "TRITON_ATTN"  # FlashAttention starts at 8.0; FlashInfer is closed for 7.5 since 0.24
    return changed
