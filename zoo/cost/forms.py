"""How fast forms are multiplied beside AWQ: kernels that were measured or published.

Of a T4 they are of single kernels, of Hopper of whole runs (docs/quantization.md). Elsewhere nothing is known, and the nearer
of the two is taken with a wide margin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from zoo.contracts import Scheme
from zoo.cost.interval import Z
from zoo.targets.capabilities import HOPPER, TURING, Capability


class FormSpeed(NamedTuple):
    """Speed of a form as a multiple of AWQ's; deviation of its logarithm; what it rests on."""

    times: float
    spread: float
    source: str


# Milliseconds on a Turing card, vllm PR 29901 (Marlin for 7.5): n = 1024, k = 2048, m = 4096 rows, by its ends.
FLOAT16, W4A16, W4A8 = (0.313, 0.313), (0.270, 0.293), (0.184, 0.198)
# Times as fast as torch's float16 on a T4, vllm PR 6996 (int8 by CUTLASS): Llama 2 7B's shapes, 32 to 128 rows.
INT8_FEW_ROWS = (1.55, 1.99)
OTHER_SHAPES, OTHER_ROWS = 0.1, 0.15  # of the logarithm, for other shapes than one and for many rows: guesses
SHEET = 130 / 65  # of a T4's operations a second in int8 and float16: no form is faster than that beside float16


def _range(fast: tuple[float, float], slow: tuple[float, float]) -> tuple[float, float]:
    """Least and most times that kernels of `fast` milliseconds are as fast as those of `slow`."""
    return slow[0] / fast[1], slow[1] / fast[0]


def _within(low: float, high: float, beyond: float, source: str) -> FormSpeed:
    """The middle of a range, 80 in 100 of whose logarithms lie in it, and the deviation `beyond` what it was taken of."""
    return FormSpeed(math.sqrt(low * high), math.hypot(math.log(high / low) / 2 / Z, beyond), source)


def _turing() -> dict[Scheme, FormSpeed]:
    """A T4's forms beside W4A16.

    int8 joins two tables: int8 beside float16 of 32 to 128 rows, where reading the weights counts, and float16 beside W4A16 of
    4,096, where it does not. Scoring has thousands of rows. There the data sheet bounds int8 from above, and W4A8 from below:
    it multiplies in int8, too, and unpacks its weights beside.
    """
    marlin = _range(W4A8, W4A16)
    over_float16 = _range(W4A16, FLOAT16)
    few = INT8_FEW_ROWS[0] / over_float16[1], INT8_FEW_ROWS[1] / over_float16[0]
    int8 = min(marlin[0], few[0]), max(SHEET / over_float16[0], few[1])
    return {
        "w4a8": _within(
            *marlin,
            OTHER_SHAPES,
            f"Marlin on a Turing card, one shape of 4,096 rows (vllm PR 29901); others within {OTHER_SHAPES:.0%}, a guess",
        ),
        "int8": _within(
            *int8,
            OTHER_ROWS,
            "CUTLASS on a T4 with up to 128 rows (vllm PR 6996), its data sheet, and Marlin of 4,096 rows; many rows within "
            f"{OTHER_ROWS:.0%}, a guess",
        ),
    }


_T4 = _turing()
# One H200, vLLM 0.26, Llama 3 8B's shape, 16,384 batched tokens, 2026-11-26: int8 74,147 tokens/s on the mean of two, fp8
# 70,133, AWQ by Machete 42,692; W4A8 by Marlin 30,059.
_HOPPER: dict[Scheme, FormSpeed] = {
    "int8": FormSpeed(1.74, 0.05, "CUTLASS on an H200, an 8B shape"),
    "fp8": FormSpeed(1.64, 0.05, "CUTLASS on an H200, an 8B shape"),
    "w4a8": FormSpeed(0.70, 0.05, "Marlin on an H200 beside Machete, an 8B shape"),
}
ELSEWHERE_SPREAD = 0.3  # a guess


def _guessed() -> str:
    return f", within {ELSEWHERE_SPREAD:.0%}, a guess"


def speed_of(scheme: Scheme, capability: Capability | None) -> FormSpeed:
    """Speed of a form on cards of a capability.

    None: on processors, where nothing is told beforehand but 1.
    """
    if scheme == "awq":
        return FormSpeed(1.0, 0.0, "")
    if capability is None:
        return FormSpeed(1.0, ELSEWHERE_SPREAD, f"unknown on processors, taken to be as fast{_guessed()}")
    table = _HOPPER if capability == HOPPER else _T4
    if capability in (HOPPER, TURING) and scheme in table:
        return table[scheme]
    found = table.get(scheme) or _HOPPER[scheme]
    return FormSpeed(found.times, ELSEWHERE_SPREAD, f"not measured on such a card{_guessed()}; {found.source}")
