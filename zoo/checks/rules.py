"""Rules of AutoAWQ and vLLM, as data and pure functions.

Tests hold them against vLLM's own verdicts. They were read in vLLM 0.32 (config/model.py,
model_executor/layers/quantization/auto_awq.py, platforms/cuda.py, v1/attention/backends); what differs by version, in the
releases 0.11 to 0.33 and their issues.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from zoo.contracts import Scheme
from zoo.errors import ZooError
from zoo.targets.capabilities import ADA, AMPERE, BLACKWELL, HOPPER, TURING, Capability

Version = tuple[int, int]
# vllm/config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS, by architecture.
FLOAT16_REFUSED = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Glm4ForCausalLM"})
RESCALABLE = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM"})  # zoo/stages/score/vllm/gemma_float16.py
RESCALE_BITS = 4  # 16 times float16's range; what a new entry gets
FOUR_NORMS = RESCALABLE  # architectures with norms before and after both parts of a layer

AWQ_GROUP_SIZES = (32, 64, 128)  # of Marlin, vLLM's fast AWQ kernel (marlin_utils.py, MARLIN_SUPPORTED_GROUP_SIZES)
TRITON_GROUP_SIZE = 256  # TRITON_W4A16_SUPPORTED_GROUP_SIZES has one that Marlin lacks
MACHETE_GROUP_SIZES = (64, 128)  # query_machete_supported_group_sizes for 16-bit activations
AWQ_CAPABILITY = TURING  # AutoAWQConfig.get_min_capability
FLASHINFER_HEADS = (64, 128, 256)  # FlashInferBackend.get_supported_head_sizes, as far as FLASH_ATTN's go
SMALLEST_TRITON_HEAD = 32  # TritonAttentionBackend.supports_head_size

LABELS_BY_ID: Version = (0, 20)  # `logprob_token_ids`, without which a label can be missing from the answer
# gemma_float16.py was written for 0.26 to 0.32. 0.21 keeps a float16 Gemma's residual stream in float32 between layers, and
# its norms have the same parts: held against float32 in benchmarks/engine_versions.md.
RESCALING_TRIED: tuple[tuple[Version, Version], ...] = (((0, 21), (0, 21)), ((0, 26), (0, 32)))
# Classifiers were served by this one alone; 0.21 has the same calls, by its source (vllm/pooling_params.py).
POOLING_TRIED: tuple[Version, ...] = ((0, 32),)
FLASHINFER_BROKEN: tuple[Version, Version] = ((0, 22), (0, 23))  # on sm_75: vllm#44379, flashinfer#3620
FLASHINFER_GATED: Version = (0, 24)  # from here sm_75 gets Triton's attention (vllm PR #45375)
BEST_ON_TURING = "0.21.0"  # labels by id, Marlin, and attention on tensor cores; needs a CUDA 13 driver (580 or newer)


def parse_version(text: str) -> Version:
    """Major and minor of `0.32.0` or `0.20.2+cu129`. ZooError where it is no version."""
    found = re.match(r"(\d+)\.(\d+)", text)
    if not found:
        raise ZooError(f"--engine {text}: not a version of vLLM; write it as 0.32.0")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class DtypeVerdict:
    """`dtype` is what vLLM computes in; `refusal` why it does not start, empty where it does."""

    dtype: str
    refusal: str = ""


def dtype_verdict(
    architecture: str, declared: str, capability: Capability | None, *, rescaled: bool = False, stored: str = "float16"
) -> DtypeVerdict:
    """Whether vLLM runs an AWQ checkpoint in the declared dtype.

    One of `auto`, `float16`, `bfloat16`, `float32`. Without a capability (a CPU) every dtype exists. `auto` takes the dtype
    that config.json names as stored, if the machine and the architecture have it, else the first that they have.
    """
    has_bfloat16 = capability is None or capability >= AMPERE
    takes_float16 = rescaled or architecture not in FLOAT16_REFUSED
    dtype = declared
    if declared == "auto":
        possible = [*(["bfloat16"] if has_bfloat16 else []), *(["float16"] if takes_float16 else []), "float32"]
        dtype = stored if stored in possible and stored != "float32" else possible[0]
    if dtype == "float16" and not takes_float16:
        return DtypeVerdict(dtype, f"vLLM refuses {architecture} in float16, where it overflows")
    if dtype == "float32":
        auto = f"`auto` is float32 for {architecture} where there is no bfloat16, and " if declared == "auto" else ""
        return DtypeVerdict(dtype, f"{auto}AWQ kernels compute in 16 bits, not in float32")
    if capability is not None and dtype == "bfloat16" and not has_bfloat16:
        return DtypeVerdict(dtype, f"sm_{capability[0]}{capability[1]} has no bfloat16")
    return DtypeVerdict(dtype)


def awq_kernel(capability: Capability, group_size: int) -> Literal["marlin", "plain", ""]:
    """Which AWQ kernel vLLM takes: Marlin, or dequantizing before a plain product.

    Empty below sm_75.
    """
    if capability < AWQ_CAPABILITY:
        return ""
    return "marlin" if group_size in AWQ_GROUP_SIZES else "plain"


def awq_converted(capability: Capability | None, backend: str, group_size: int) -> bool:
    """Whether vLLM converts each matrix as it loads.

    See AutoAWQMarlinLinearMethod.process_weights_after_loading. AWQ's own layout (autoawq, auto-round) has an order that is
    changed for Marlin and for processors' kernels, while the plain AWQ kernel reads it as it is. compressed-tensors have the
    order that kernels want.
    """
    return backend != "llm-compressor" and (capability is None or awq_kernel(capability, group_size) == "marlin")


def packed_kernel(
    capability: Capability, group_size: int, *, zero_point: bool
) -> Literal["machete", "marlin", "exllama", "triton", ""]:
    """vLLM's kernel for 4-bit compressed-tensors weights in float16.

    Empty where there is none. The rules are those of choose_mp_linear_kernel. Machete is for Hopper alone; Exllama reads no
    stored zero points, and computes in float16 only; Triton takes groups of 256.
    """
    if capability < TURING:  # CompressedTensorsWNA16.get_min_capability
        return ""
    if capability == HOPPER and group_size in MACHETE_GROUP_SIZES:
        return "machete"
    if group_size in AWQ_GROUP_SIZES:
        return "marlin"
    if not zero_point:
        return "exllama"
    return "triton" if group_size == TRITON_GROUP_SIZE else ""


@dataclass(frozen=True)
class EightBitKernel:
    """vLLM's kernel for a form with 8 bit activations; why there is none, or what is to know."""

    name: str = ""
    refusal: str = ""
    warning: str = ""
    mend: str = ""


def eight_bit_kernel(scheme: Scheme, capability: Capability | None, group_size: int) -> EightBitKernel:
    """What multiplies a form with 8 bit activations; without a capability on processors.

    int8: CompressedTensorsW8A8Int8.get_min_capability, and cutlass_scaled_mm has no int8 from sm_100 on. fp8: below 8.9 Marlin
    takes the weights, and activations stay in 16 bits. w4a8: Marlin with VLLM_MARLIN_INPUT_DTYPE=int8 and symmetric weights.
    """
    if capability is None:
        return _ON_PROCESSORS[scheme]
    if capability < TURING:
        return EightBitKernel(refusal="vLLM's kernels with 8 bit activations need sm_75", mend="choose a newer GPU")
    if scheme == "int8":
        if capability[0] >= BLACKWELL:
            return EightBitKernel(refusal="vLLM has no int8 kernels there", mend='take the form "fp8"')
        return EightBitKernel("CUTLASS")
    if scheme == "fp8":
        if capability < ADA:
            what = "below sm_89 activations stay in 16 bits, and it is no faster than AWQ"
            return EightBitKernel(refusal=what, mend='take the form "int8" or "w4a8"')
        return EightBitKernel("CUTLASS")
    if group_size not in AWQ_GROUP_SIZES:
        sizes = ", ".join(map(str, AWQ_GROUP_SIZES))
        return EightBitKernel(
            refusal=f"Marlin takes groups of {sizes}, not of {group_size}", mend="set quantize.group_size = 128, 64 or 32"
        )
    slower = "slower than AWQ there, whose kernel is Machete" if capability == HOPPER else ""
    return EightBitKernel("Marlin", warning=slower, mend='take the form "int8"' if slower else "")


_ON_PROCESSORS: dict[Scheme, EightBitKernel] = {
    "int8": EightBitKernel("AMX or oneDNN"),
    "w4a8": EightBitKernel(
        "vLLM's kernel for 4 bits",
        warning="activations stay in 16 bits but for processors with AMX",
        mend='take the form "int8"',
    ),
    "fp8": EightBitKernel(refusal="vLLM multiplies it on processors with AMX-FP8 alone", mend='take the form "int8"'),
}


def attention_backend(version: Version, capability: Capability, head_size: int) -> str:
    """The attention that vLLM takes by default, with FlashInfer installed, by its name in vLLM."""
    if capability[0] == BLACKWELL and head_size in FLASHINFER_HEADS:
        return "FLASHINFER"
    if capability >= AMPERE:
        if head_size <= 256 and head_size % 8 == 0:
            return "FLASH_ATTN"
    elif version < FLASHINFER_GATED and head_size in FLASHINFER_HEADS:
        return "FLASHINFER"
    return "TRITON_ATTN" if head_size >= SMALLEST_TRITON_HEAD else "FLEX_ATTENTION"
