"""Which kernels multiply an engine's linear layers, asked of the loaded model itself.

vLLM chooses them by form, card and sizes, and says so in a log of its own level. A form that is multiplied by another kernel
than was priced is no error to vLLM: its numbers would be right and its hours wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from zoo.contracts import Scheme

MARLIN_ACTIVATIONS = "VLLM_MARLIN_INPUT_DTYPE"
# Taken before Marlin on Hopper; with 16 bit activations, or fp8 ones.
BEFORE_MARLIN = ("CutlassW4A8LinearKernel", "MacheteLinearKernel")
# What the names of kernels hold (vllm/model_executor/kernels/linear of 0.26 to 0.32), or of schemes that have but one.
KERNELS: dict[Scheme, tuple[str, ...]] = {
    "int8": ("Int8ScaledMM", "W8A8Int8"),
    "fp8": ("ScaledMM", "W8A8Fp8"),
    "w4a8": ("Marlin",),
}


def form_environment(scheme: Scheme | None, *, on_gpu: bool) -> dict[str, str]:
    """Settings that vLLM reads from the environment for a form; None: AWQ, or not quantized."""
    if scheme != "w4a8" or not on_gpu:
        return {}
    disabled = [name for name in os.environ.get("VLLM_DISABLED_KERNELS", "").split(",") if name]
    return {MARLIN_ACTIVATIONS: "int8", "VLLM_DISABLED_KERNELS": ",".join(dict.fromkeys([*disabled, *BEFORE_MARLIN]))}


def linear_kernels(worker: Any) -> dict[str, int]:
    """Run in each worker of an engine: how many linear layers each kernel multiplies."""
    found: Counter[str] = Counter()
    for layer in worker.model_runner.get_model().modules():
        method = getattr(layer, "quant_method", None)
        if method is None or not hasattr(layer, "input_size") or "Embedding" in type(method).__name__:
            continue
        scheme = getattr(layer, "scheme", None)
        kernel = getattr(method, "kernel", None) or getattr(scheme, "kernel", None) or getattr(scheme, "fp8_linear", None)
        found[type(kernel or scheme or method).__name__] += 1
    return dict(found)


def refusal(scheme: Scheme | None, kernels: Mapping[str, int], *, on_gpu: bool) -> str:
    """Why these kernels are not those of a form; empty where they are.

    Processors multiply 4 bit weights by a kernel of their own, whatever activations are.
    """
    wanted = KERNELS.get(scheme, ()) if scheme else ()
    if not wanted or (scheme == "w4a8" and not on_gpu):
        return ""
    # Below 8.9 Marlin takes fp8 weights, with 16 bit activations.
    right = [name for name in kernels if any(part in name for part in wanted)]
    if any(scheme == "w4a8" or "Marlin" not in name for name in right):
        return ""
    took = ", ".join(sorted(kernels)) or "none"
    return f"{scheme} is multiplied by {took} here and not by {wanted[0]}; use another form (docs/quantization.md)"
