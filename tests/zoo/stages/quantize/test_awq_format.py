"""The layout of AWQ checkpoints against autoawq's own packing."""

from __future__ import annotations

import torch

from zoo.stages.quantize import awq_format


def test_dequantize_reads_autoawq_s_layout() -> None:
    """Oracle: autoawq's own packing, given integers and scales chosen here."""
    from awq.modules.linear.gemm import WQLinear_GEMM

    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(2, 32, generator=generator).half() + 0.1  # groups x out
    zeros = torch.randint(0, 16, (2, 32), generator=generator).half()
    wide_s, wide_z = scales.repeat_interleave(32, 0).T, zeros.repeat_interleave(32, 0).T
    weight = (torch.randint(0, 16, (32, 64), generator=generator).half() - wide_z) * wide_s
    linear = torch.nn.Linear(64, 32, bias=False).half()
    linear.weight.data = weight
    with torch.no_grad():
        packed = WQLinear_GEMM.from_linear(linear, 4, 32, scales=scales, zeros=zeros)
    assert torch.allclose(awq_format.dequantize(packed.qweight, packed.qzeros, packed.scales), weight.float(), atol=2e-2)
