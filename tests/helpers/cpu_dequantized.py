"""Layers of 4 and 8 bit weights by this project's kernels for processors: run by test_cpu_dequantized.py in its own process.

python -m tests.helpers.cpu_dequantized    ->  JSON: the largest errors, and what replaced what
"""

from __future__ import annotations

import json

import torch

INT8 = ((True, True), (False, True), (False, False))  # large sums, inputs rounded around zero


def error(*, zero_points: bool) -> float:
    """The largest difference from a product with weights that numpy-like arithmetic dequantizes; 96 inputs in groups of 32."""
    from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import MPLinearLayerConfig
    from vllm.model_executor.layers.quantization.utils.quant_utils import pack_quantized_values_into_int32
    from vllm.scalar_type import scalar_types

    from zoo.stages.score.vllm.cpu_dequantized import DequantizedLinearKernel

    def parameter(data: torch.Tensor, **attributes: int) -> torch.nn.Parameter:
        """With what vLLM's own classes say of a parameter, which want its processes' groups."""
        made = torch.nn.Parameter(data, requires_grad=False)
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    generator = torch.Generator().manual_seed(0)
    inputs, outputs, group = 96, 64, 32
    levels = torch.randint(0, 16, (inputs, outputs), generator=generator, dtype=torch.int32)
    zeros = torch.randint(0, 16, (inputs // group, outputs), generator=generator, dtype=torch.int32)
    scales = torch.rand(inputs // group, outputs, generator=generator) + 0.5
    offset = (zeros if zero_points else torch.full_like(zeros, 8)).repeat_interleave(group, 0)
    exact = (levels - offset).float() * scales.repeat_interleave(group, 0)
    kind = scalar_types.uint4 if zero_points else scalar_types.uint4b8
    layer = torch.nn.Module()
    layer.weight = parameter(pack_quantized_values_into_int32(levels, kind, 0), packed_dim=0, input_dim=0, output_dim=1)
    layer.scales = parameter(scales, input_dim=0, output_dim=1)
    layer.zeros = parameter(pack_quantized_values_into_int32(zeros, kind, 1), packed_dim=1, input_dim=0, output_dim=1)
    shape = (inputs, outputs)
    config = MPLinearLayerConfig(shape, shape, kind, torch.float32, group, zero_points)
    kernel = DequantizedLinearKernel(config, "weight", "scales", "zeros")
    kernel.process_weights_after_loading(layer)
    x = torch.randn(5, inputs, generator=generator)
    return float((kernel.apply_weights(layer, x) - x @ exact).abs().max())


def int8_error(*, large: bool, symmetric: bool) -> float:
    """The largest difference from a product in float64 of the rounded weights and inputs, as a share of the largest output."""
    from vllm.model_executor.kernels.linear.scaled_mm.ScaledMMLinearKernel import Int8ScaledMMLinearLayerConfig

    from zoo.stages.score.vllm.cpu_dequantized import ExactInt8ScaledMMLinearKernel

    generator = torch.Generator().manual_seed(0)
    inputs, outputs = 256, 64
    levels = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    levels = torch.full_like(levels, 127) if large else levels
    x = torch.ones(3, inputs) if large else torch.randn(3, inputs, generator=generator)
    scale = torch.rand(outputs, 1, generator=generator) + 0.5
    layer = torch.nn.Module()
    layer.logical_widths = [outputs]
    layer.weight = torch.nn.Parameter(levels, requires_grad=False)
    layer.scale = torch.nn.Parameter(scale, requires_grad=False)
    layer.input_scale = layer.input_zero = layer.adjustment = None
    config = Int8ScaledMMLinearLayerConfig(is_static_input_scheme=False, is_channelwise=True, input_symmetric=symmetric)
    kernel = ExactInt8ScaledMMLinearKernel(config, ["weight", "scale", "input_scale", "input_zero", "adjustment"])
    kernel.process_weights_after_loading(layer)
    step = _rounded(x, symmetric=symmetric)
    exact = step.double() @ (levels.double() * scale.double()).t()
    return float((kernel.apply_weights(layer, x) - exact).abs().max() / exact.abs().max())


def _rounded(x: torch.Tensor, *, symmetric: bool) -> torch.Tensor:
    """Rows as 8 bits hold them: of equal steps around zero, or from the smallest to the largest."""
    if symmetric:
        step = x.abs().amax(1, keepdim=True) / 127
        return (x / step).round() * step
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    step = (high - low) / 255
    zero = (-128 - low / step).round()
    return ((x / step).round() + zero).clamp(-128, 127).sub(zero) * step


def replaced() -> list[str]:
    """The kernels of processors after the replacement, which is made twice."""
    from vllm.model_executor.kernels import linear
    from vllm.platforms.interface import PlatformEnum

    from zoo.stages.score.vllm.cpu_dequantized import replace_kernels

    replace_kernels()
    replace_kernels()
    kernels = (*linear._POSSIBLE_KERNELS[PlatformEnum.CPU], *linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU])
    return [kernel.__name__ for kernel in kernels]


if __name__ == "__main__":
    from zoo.stages.score.vllm.engine import prepare_environment

    prepare_environment(eager=True)
    from zoo.stages.score.vllm.cpu_dequantized import saturates

    errors = {str(zero_points): error(zero_points=zero_points) for zero_points in (True, False)}
    errors |= {f"int8 {large} {symmetric}": int8_error(large=large, symmetric=symmetric) for large, symmetric in INT8}
    built, wrong = hasattr(torch.ops._C, "cpu_gemm_wna16"), saturates()
    print(json.dumps({"errors": errors, "kernels": replaced(), "built": built, "saturates": wrong}))
