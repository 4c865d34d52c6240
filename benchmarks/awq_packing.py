"""Seconds to pack a decoder layer's linears in AWQ's GEMM layout: `python benchmarks/awq_packing.py --shape llama-3-8b`.

autoawq's `WQLinear_GEMM.from_linear` and `pack_linear` one after the other, linear by linear, on random float16 weights rounded
to their grid, on the GPU where there is one; what they write is compared to the bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.quantize.quantizer import AwqQuantizer
from random_weights import SHAPES, layer_shapes

from zoo.stages.device import device
from zoo.stages.quantize.awq_quantizer import pack_linear


def rounded_linear(out: int, into: int, group_size: int) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    """A linear whose weight is on its 4-bit grid, with scales and zero points (groups, out)."""
    rounding: Any = AwqQuantizer.__new__(AwqQuantizer)
    rounding.__dict__.update(group_size=group_size, zero_point=True, w_bit=4)
    linear = torch.nn.Linear(into, out, bias=False, dtype=torch.float16, device=device())
    weight = torch.randn(out, into, device=device()).mul_(0.02).half()
    linear.weight.data, scales, zeros = rounding.pseudo_quantize_tensor(weight)
    return linear, scales.t().contiguous(), zeros.t().contiguous()


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    made = job()
    if device().type == "cuda":
        torch.cuda.synchronize()
    return made, time.perf_counter() - started


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="llama-3-8b")
    parser.add_argument("--group-size", type=int, default=128)
    asked = parser.parse_args()
    size, totals = asked.group_size, [0.0, 0.0]
    for name, (out, into) in layer_shapes(SHAPES[asked.shape]).items():
        linear, scales, zeros = rounded_linear(out, into, size)
        theirs, before = timed(lambda: WQLinear_GEMM.from_linear(linear, 4, size, scales=scales, zeros=zeros))  # noqa: B023
        ours, after = timed(lambda: pack_linear(linear, size, scales, zeros))  # noqa: B023
        assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items()), name
        totals = [totals[0] + before, totals[1] + after]
        print(f"{name} {out} x {into}: from_linear {before:.2f} s, pack_linear {after:.2f} s", flush=True)
    print(f"layer: from_linear {totals[0]:.2f} s, pack_linear {totals[1]:.2f} s, {totals[0] / totals[1]:.0f} times faster")


if __name__ == "__main__":
    main()
