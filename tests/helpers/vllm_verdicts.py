"""What vLLM itself says on a GPU of a given compute capability, without one: run by test_rules_of_vllm.py in its own process.

    python -m tests.helpers.vllm_verdicts FOLDER

vLLM's CUDA platform is put in place of the real one before anything asks for it, its capability made up. The compiled parts
that only a CUDA build has, and FlashInfer, are stood in for by empty modules; configuration does not call them. Prints JSON:
verdicts on dtypes, attention by head size, whether Marlin takes a group size, and what converting weights for it takes.
"""

from __future__ import annotations

import importlib.machinery
import itertools
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

os.environ["VLLM_LOGGING_LEVEL"] = "CRITICAL"

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
}
DTYPES = ("auto", "float16", "bfloat16", "float32")
HEADS = (16, 32, 64, 80, 128, 256)
GROUPS = (16, 32, 64, 128, 256)
TINY: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
}


def pretend_cuda() -> Any:
    """vLLM's CUDA platform as the current one; set `capability` of what is returned to change the GPU."""
    import torch

    def stand_in(name: str) -> None:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # asked for where vLLM looks whether a package is there

        def attribute(wanted: str) -> Any:
            if wanted.startswith("__"):
                raise AttributeError(wanted)
            return type(wanted, (), {}) if wanted[0].isupper() else lambda *args, **kwargs: None

        module.__getattr__ = attribute  # type: ignore[method-assign]
        sys.modules[name] = module

    flashinfer = ("flashinfer", "flashinfer.decode", "flashinfer.prefill", "flashinfer.utils")
    for name in ("vllm._C_stable_libtorch", "vllm.vllm_flash_attn", *flashinfer):
        stand_in(name)
    for part in ("scaled_mm_supports_block_fp8", "scaled_mm_supports_fp8", "group_gemm_supported", "scaled_mm_supports_fp4"):
        torch.library.define(f"_C::cutlass_{part}", "(int capability) -> bool")
        torch.library.impl(f"_C::cutlass_{part}", "CompositeExplicitAutograd", lambda capability: False)

    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class Pretended(NonNvmlCudaPlatform):  # type: ignore[misc, valid-type]
        capability = (7, 5)

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*cls.capability)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return "pretended"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return 15 * 2**30

    vllm.platforms._current_platform = Pretended()
    return Pretended


def dtype_verdict(
    platform: Any, folder: Path, architecture: str, dtype: str, *, rescaled: bool = False, stored: str = "float16"
) -> dict[str, Any]:
    """Whether vLLM's configuration and its worker's first check take an AWQ checkpoint, and the dtype it computes in."""
    from vllm.engine.arg_utils import EngineArgs

    from zoo.stages.score.vllm.plugin import rescale_overrides

    config = {**TINY, "dtype": stored, "architectures": [architecture], "model_type": ARCHITECTURES[architecture]}
    (folder / "config.json").write_text(json.dumps(config))
    overrides = rescale_overrides(config, 4 if rescaled else None)
    asked = {"capability": platform.capability, "architecture": architecture, "declared": dtype}
    asked |= {"rescaled": rescaled, "stored": stored}
    try:
        arguments = EngineArgs(
            model=str(folder),
            dtype=dtype,
            hf_overrides=overrides,
            skip_tokenizer_init=True,
            max_model_len=256,
            enforce_eager=True,
        )
        computes = arguments.create_engine_config().model_config.dtype
        platform.check_if_supports_dtype(computes)  # vllm/v1/worker/gpu_worker.py, init_device
    except ValueError as error:
        return {**asked, "dtype": None, "reason": str(error)}
    return {**asked, "dtype": str(computes).removeprefix("torch."), "reason": ""}


def attention(platform: Any, head_size: int) -> dict[str, Any]:
    """The first attention backend that vLLM finds valid."""
    import torch
    from vllm.v1.attention.selector import AttentionSelectorConfig

    asked = AttentionSelectorConfig(head_size=head_size, dtype=torch.float16, kv_cache_dtype="auto", block_size=None)
    valid, _ = platform.get_valid_backends(platform.get_device_capability(), asked)
    first = min(valid, key=lambda candidate: candidate.priority).backend.name
    return {"capability": platform.capability, "head_size": head_size, "backend": first}


def marlin(platform: Any, group_size: int) -> dict[str, Any]:
    """Whether Marlin takes a group size, and whether the method of a linear layer is the one that converts its weights."""
    import torch
    from vllm.model_executor.layers.linear import LinearBase
    from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
    from vllm.model_executor.layers.quantization.utils.marlin_utils import check_marlin_supported
    from vllm.scalar_type import scalar_types

    class Layer(LinearBase):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.input_size = self.output_size = self.input_size_per_partition = self.output_size_per_partition = 1024

    taken = check_marlin_supported(scalar_types.uint4, group_size, has_zp=True)
    method = type(AutoAWQConfig(4, group_size, True, False).get_quant_method(Layer(), "layer")).__name__
    asked = {"capability": platform.capability, "group_size": group_size}
    return {**asked, "marlin": bool(taken), "converted": method == "AutoAWQMarlinLinearMethod"}


def conversion(inputs: int, outputs: int, group_size: int) -> dict[str, int]:
    """Most bytes that converting one AWQ matrix holds beyond its own, as torch's profiler sees it on a CPU."""
    import numpy as np
    import torch
    import vllm.model_executor.parameter as parameter
    from torch.profiler import ProfilerActivity, profile
    from vllm.model_executor.layers.quantization.auto_awq import _convert_awq_to_standard_format

    parameter.get_tensor_model_parallel_rank = lambda: 0
    parameter.get_tensor_model_parallel_world_size = lambda: 1
    layer = torch.nn.Module()
    for name, rows in (("qweight", inputs), ("qzeros", inputs // group_size)):
        values = torch.randint(0, 2**31 - 1, (rows, outputs // 8), dtype=torch.int32)
        layer.register_parameter(name, torch.nn.Parameter(values, requires_grad=False))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        _convert_awq_to_standard_format(layer, "qweight", "qzeros", 4)
    events = found.profiler.kineto_results.events()
    held = np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"])
    return {"inputs": inputs, "outputs": outputs, "bytes": int(held.max())}


def packed(platform: Any, group_size: int, zero_point: bool) -> dict[str, Any]:
    """The kernel that vLLM's CompressedTensorsWNA16 would take; empty where none can."""
    import torch
    from vllm.model_executor.kernels.linear import MPLinearLayerConfig, choose_mp_linear_kernel
    from vllm.scalar_type import scalar_types

    config = MPLinearLayerConfig(
        full_weight_shape=(6144, 6144),
        partition_weight_shape=(6144, 6144),
        weight_type=scalar_types.uint4 if zero_point else scalar_types.uint4b8,
        act_type=torch.float16,
        group_size=group_size,
        zero_points=zero_point,
    )
    asked = {"capability": platform.capability, "group_size": group_size, "zero_point": zero_point}
    try:
        kernel = choose_mp_linear_kernel(config, platform.get_device_capability().to_int()).__name__
    except ValueError:
        return {**asked, "kernel": ""}
    return {**asked, "kernel": kernel.removesuffix("LinearKernel").removesuffix("W4A16").lower()}


def main(folder: Path) -> None:
    platform = pretend_cuda()
    from zoo.checks.rules import RESCALABLE
    from zoo.stages.score.vllm.plugin import register

    register()
    answer: dict[str, Any] = {"dtypes": [], "attention": [], "marlin": [], "packed": []}
    answer["conversion"] = [conversion(*sizes) for sizes in ((256, 1024, 64), (1024, 3072, 128), (512, 512, 32))]
    for capability in ((7, 5), (8, 0), (8, 9), (9, 0), (10, 0)):
        platform.capability = capability
        for architecture, dtype in itertools.product(ARCHITECTURES, DTYPES):
            for rescaled in (False, True) if architecture in RESCALABLE else (False,):
                for stored in DTYPES[1:] if dtype == "auto" else ("float16",):
                    answer["dtypes"].append(
                        dtype_verdict(platform, folder, architecture, dtype, rescaled=rescaled, stored=stored)
                    )
        answer["attention"] += [attention(platform, head) for head in HEADS]
        answer["marlin"] += [marlin(platform, group) for group in GROUPS]
    for capability in ((7, 5), (8, 0), (9, 0)):
        platform.capability = capability
        answer["packed"] += [packed(platform, group, zero) for group in GROUPS for zero in (True, False)]
    platform.capability = (7, 0)
    answer["dtypes"].append(dtype_verdict(platform, folder, "LlamaForCausalLM", "float16"))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
