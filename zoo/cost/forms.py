"""How fast forms are multiplied beside AWQ: kernels that were measured or published.

Of a T4 they are of single kernels, of Hopper of whole runs (docs/quantization.md). Elsewhere nothing is known, and the nearer
of the two is taken with a wide margin.
"""

from __future__ import annotations

from typing import NamedTuple

from zoo.contracts import Scheme
from zoo.targets.capabilities import HOPPER, TURING, Capability


class FormSpeed(NamedTuple):
    """Speed of a form as a multiple of AWQ's; deviation of its logarithm; what it rests on."""

    times: float
    spread: float
    source: str


# vllm PR 29901, n = 1024, k = 2048, m = 4096: fp16 0.313 ms, W4A16 0.270 to 0.293, W4A8 0.184 to 0.198. vllm PR 6996: int8
# 1.55 to 1.99 times torch's fp16 for Llama 2 7B's shapes with 32 to 128 rows; W4A16 is 1.11 times it by the other table.
_T4: dict[Scheme, FormSpeed] = {
    "w4a8": FormSpeed(1.47, 0.1, "Marlin on a Turing card, vllm PR 29901"),
    "int8": FormSpeed(1.6, 0.2, "CUTLASS on a T4 with up to 128 rows, vllm PR 6996, beside Marlin by PR 29901"),
}
# One H200, vLLM 0.26, Llama 3 8B's shape, 16,384 batched tokens, 2026-11-26: int8 74,147 tokens/s on the mean of two, fp8
# 70,133, AWQ by Machete 42,692; W4A8 by Marlin 30,059.
_HOPPER: dict[Scheme, FormSpeed] = {
    "int8": FormSpeed(1.74, 0.05, "CUTLASS on an H200, an 8B shape"),
    "fp8": FormSpeed(1.64, 0.05, "CUTLASS on an H200, an 8B shape"),
    "w4a8": FormSpeed(0.70, 0.05, "Marlin on an H200 beside Machete, an 8B shape"),
}
ELSEWHERE_SPREAD = 0.3


def speed_of(scheme: Scheme, capability: Capability | None) -> FormSpeed:
    """Speed of a form on cards of a capability.

    None: on processors, where nothing is told beforehand but 1.
    """
    if scheme == "awq":
        return FormSpeed(1.0, 0.0, "")
    if capability is None:
        return FormSpeed(1.0, ELSEWHERE_SPREAD, "unknown on processors, taken to be as fast")
    table = _HOPPER if capability == HOPPER else _T4
    if capability in (HOPPER, TURING) and scheme in table:
        return table[scheme]
    found = table.get(scheme) or _HOPPER[scheme]
    return FormSpeed(found.times, ELSEWHERE_SPREAD, f"not measured on such a card; {found.source}")
