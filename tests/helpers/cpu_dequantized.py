"""Layers of 4 bit weights by the kernel that dequantizes them: run by test_cpu_dequantized.py in its own process.

python -m tests.helpers.cpu_dequantized    ->  JSON: the largest error with and without zero points, and what replaced what
"""

from __future__ import annotations

import json

import torch


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


def replaced() -> list[str]:
    """The kernels of processors after the replacement, which is made twice."""
    from vllm.model_executor.kernels import linear
    from vllm.platforms.interface import PlatformEnum

    from zoo.stages.score.vllm.cpu_dequantized import replace_missing_kernel

    replace_missing_kernel()
    replace_missing_kernel()
    return [kernel.__name__ for kernel in linear._POSSIBLE_KERNELS[PlatformEnum.CPU]]


if __name__ == "__main__":
    from zoo.stages.score.vllm.engine import prepare_environment

    prepare_environment(eager=True)
    errors = {str(zero_points): error(zero_points=zero_points) for zero_points in (True, False)}
    print(json.dumps({"errors": errors, "kernels": replaced(), "built": hasattr(torch.ops._C, "cpu_gemm_wna16")}))
