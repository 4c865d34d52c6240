"""What of an entry fits a target, and why not, before any hour is spent.

The rules are those of vLLM (vllm/config/model.py and its AWQ layer, read at 0.32 and 0.33) and AutoAWQ 0.2.9, and arithmetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from zoo.contracts import Base, Contract, Entry, PromptSpec, QuantizeSpec, ScoreSpec, ServeSpec
from zoo.errors import ZooError
from zoo.shapes import Shapes, approximate_shapes, awq_bytes, read_config, shapes_of_config
from zoo.targets import Target

GIB = 2**30
ENGINE_BYTES = 2 * GIB  # CUDA context, kernels and activations of an 8,192-token batch (about 1 GB at 9B)
AWQ_GROUP_SIZES = (32, 64, 128)  # of vLLM's fast AWQ kernels
AWQ_CAPABILITY = (7, 5)  # of vLLM's AWQ kernels

# Decoders that AutoAWQ 0.2.9 can quantize (awq/models/auto.py) and vLLM 0.32 can score, without their "ForCausalLM".
# fmt: off
_DECODERS = (
    "Bloom", "Cohere", "DeepseekV2", "DeepseekV3", "Exaone", "Falcon", "Gemma", "Gemma2", "GPTBigCode", "GPTJ", "GPTNeoX",
    "InternLM2", "Llama", "MiniCPM", "MiniCPM3", "Mistral", "Mixtral", "OPT", "Phi3", "Qwen2", "Qwen3", "Qwen3Moe", "StableLm",
    "Starcoder2",
)
# fmt: on
ARCHITECTURES = frozenset(f"{name}ForCausalLM" for name in _DECODERS)
# vllm/config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS, by architecture.
FLOAT16_REFUSED = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Glm4ForCausalLM"})

Verdict = Literal["ok", "warn", "fail"]


class Finding(Contract):
    """One thing that was checked. `what` says how it stands, `mend` what to do about it."""

    check: str
    verdict: Verdict
    what: str
    mend: str = ""


def check_entry(entry: Entry, target: Target, *, model_folder: Path | None = None) -> list[Finding]:
    """What holds for an entry on a target; with the model's folder (config.json, tokenizer.json) from its true shapes."""
    if entry.base is None or entry.prompt is None or entry.quantize is None or entry.score is None:
        return [Finding(check="memory", verdict="ok", what=f"{entry.kind}: no GPU needed")]
    serve = entry.serve.get(target.name, ServeSpec())
    try:
        shapes = _shapes(entry.base, model_folder)
    except ZooError as error:
        return [Finding(check="model", verdict="fail", what=str(error), mend="give the folder of a complete model")]
    return [
        _architecture(entry.base),
        _dtype(entry.base, entry.score, serve, target),
        _kernel(entry.quantize, target),
        _group_size(entry.quantize, shapes),
        _layout(serve, target),
        _memory(entry.quantize, entry.score, serve, target, shapes),
        _context(entry.prompt, entry.score, shapes),
        _labels(entry.prompt, model_folder),
    ]


def _shapes(base: Base, folder: Path | None) -> Shapes:
    if folder is None:
        return approximate_shapes(base.parameters, base.architecture)
    return shapes_of_config(read_config(folder), base.parameters)


def _architecture(base: Base) -> Finding:
    if base.architecture in ARCHITECTURES:
        return Finding(check="architecture", verdict="ok", what=f"{base.architecture}: AutoAWQ and vLLM know it")
    what = f"{base.architecture} is not among the decoders that AutoAWQ 0.2.9 quantizes and vLLM scores"
    return Finding(
        check="architecture", verdict="fail", what=what, mend="choose a Llama, Mistral, Qwen 2/3, Gemma 2 or Phi 3 model"
    )


def served_dtype(base: Base, score: ScoreSpec, serve: ServeSpec, target: Target) -> str:
    """The dtype vLLM computes in: as declared, or what its `auto` makes of a bfloat16 checkpoint on that machine."""
    declared = serve.dtype if serve.dtype != "auto" else score.dtype
    if declared != "auto":
        return declared
    if "bfloat16" in target.dtypes:
        return "bfloat16"
    return "float32" if base.architecture in FLOAT16_REFUSED else "float16"


def _dtype(base: Base, score: ScoreSpec, serve: ServeSpec, target: Target) -> Finding:
    dtype = served_dtype(base, score, serve, target)
    place = f"serve.{target.name}.dtype"
    if dtype not in target.dtypes:
        what = f"{dtype}: {target.name} has {', '.join(target.dtypes)} only"
        return Finding(check="dtype", verdict="fail", what=what, mend=f'set {place} = "{target.dtypes[0]}"')
    if base.architecture in FLOAT16_REFUSED and "bfloat16" not in target.dtypes:
        what = f"vLLM refuses {base.architecture} in float16, AWQ needs 16 bit, and {target.name} has no bfloat16"
        return Finding(check="dtype", verdict="fail", what=what, mend="predict on a target with bfloat16 (l4x2, a10g, h200)")
    if dtype == "float32":
        what = "float32: AWQ kernels compute in 16 bit"
        return Finding(check="dtype", verdict="fail", what=what, mend=f'set {place} = "{target.dtypes[0]}"')
    if base.architecture in FLOAT16_REFUSED and dtype == "float16":
        what = f"vLLM refuses {base.architecture} in float16 (it overflows)"
        return Finding(check="dtype", verdict="fail", what=what, mend=f'set {place} = "bfloat16"')
    return Finding(check="dtype", verdict="ok", what=dtype)


def _kernel(quantize: QuantizeSpec, target: Target) -> Finding:
    capability = target.compute_capability
    if capability is None:
        return Finding(check="kernel", verdict="ok", what=f"AWQ, {quantize.bits} bit, on processors")
    name = f"sm_{capability[0]}{capability[1]}"
    if capability < AWQ_CAPABILITY:
        what = f"{name}: vLLM's AWQ kernels need sm_{AWQ_CAPABILITY[0]}{AWQ_CAPABILITY[1]}"
        return Finding(check="kernel", verdict="fail", what=what, mend="choose a newer GPU")
    return Finding(check="kernel", verdict="ok", what=f"AWQ, {quantize.bits} bit, on {name}")


def _group_size(quantize: QuantizeSpec, shapes: Shapes) -> Finding:
    group = quantize.group_size
    misfits = [size for size in shapes.linear_inputs if size % group]
    if misfits:
        what = f"{group} does not divide the layer size of {misfits[0]}"
        fits = [g for g in AWQ_GROUP_SIZES if all(size % g == 0 for size in shapes.linear_inputs)]
        mend = f"set quantize.group_size = {max(fits)}" if fits else "no usual group size divides this model"
        return Finding(check="group size", verdict="fail", what=what, mend=mend)
    if group not in AWQ_GROUP_SIZES:
        what = f"{group}: vLLM's fast AWQ kernels take {', '.join(map(str, AWQ_GROUP_SIZES))}"
        return Finding(check="group size", verdict="warn", what=what, mend="set quantize.group_size = 128 or 64")
    known = "divides every layer" if shapes.linear_inputs else "layer sizes unknown until the weights are fetched"
    return Finding(check="group size", verdict="ok", what=f"{group}: {known}")


def _layout(serve: ServeSpec, target: Target) -> Finding:
    if serve.layout == "replicas":
        return Finding(check="layout", verdict="ok", what=f"replicas: {target.devices}, one a device")
    if target.gpus < 2:
        what = f"{serve.layout} needs two GPUs, {target.name} has {target.gpus}"
        return Finding(check="layout", verdict="fail", what=what, mend=f'set serve.{target.name}.layout = "replicas"')
    if serve.layout == "tensor" and target.interconnect != "nvlink":
        what = "tensor parallel without NVLink sends two all-reduces a layer through host memory"
        return Finding(check="layout", verdict="warn", what=what, mend=f'set serve.{target.name}.layout = "pipeline"')
    return Finding(check="layout", verdict="ok", what=f"{serve.layout}: one copy over {target.gpus} GPUs")


def _memory(quantize: QuantizeSpec, score: ScoreSpec, serve: ServeSpec, target: Target, shapes: Shapes) -> Finding:
    """Weights, keys and values of one full batch and one longest row, and the engine, against what a device offers."""
    longest = max(v.max_tokens or 0 for v in score.variants)
    cache = score.kv_cache_bytes or (score.max_batched_tokens + longest) * shapes.kv_bytes_per_token
    weights = awq_bytes(shapes, quantize.group_size)
    parts = 1 if serve.layout == "replicas" else target.devices
    needed = (weights + cache) / parts + ENGINE_BYTES
    room = min(target.device_bytes, serve.gpu_memory_bytes or target.device_bytes)
    about = "" if shapes.exact else "about "
    shares = f"weights {weights / parts / GIB:.2f}, cache {cache / parts / GIB:.2f}, engine {ENGINE_BYTES / GIB:.0f}"
    what = f"{about}{needed / GIB:.1f} of {room / GIB:.1f} GiB a device: {shares}"
    if needed <= 0.95 * room:
        return Finding(check="memory", verdict="ok", what=what)
    if needed <= room:
        mend = f"lower score.max_batched_tokens ({score.max_batched_tokens}) for more room"
        return Finding(check="memory", verdict="warn", what=what, mend=mend)
    split = (weights + cache) / target.devices + ENGINE_BYTES
    if serve.layout == "replicas" and target.gpus > 1 and split <= room:
        mend = f'set serve.{target.name}.layout = "pipeline"'
    elif weights / parts + ENGINE_BYTES < room:
        mend = f"lower score.max_batched_tokens ({score.max_batched_tokens})"
    else:
        mend = "choose a smaller model or a larger target"
    return Finding(check="memory", verdict="fail", what=what, mend=mend)


def _context(prompt: PromptSpec, score: ScoreSpec, shapes: Shapes) -> Finding:
    longest = max(prompt.max_tokens, *(v.max_tokens or 0 for v in score.variants))
    if shapes.max_tokens is not None and longest > shapes.max_tokens:
        what = f"{longest} tokens a row, the model was made for {shapes.max_tokens}"
        return Finding(check="context", verdict="fail", what=what, mend="lower max_tokens in [prompt] and [score]")
    known = f"of {shapes.max_tokens}" if shapes.max_tokens else "a row; the model's limit is unknown until it is fetched"
    return Finding(check="context", verdict="ok", what=f"{longest} {known}")


def _labels(prompt: PromptSpec, folder: Path | None) -> Finding:
    if folder is None:
        what = f"{', '.join(prompt.labels)}: not checked, the tokenizer is not at hand"
        return Finding(check="labels", verdict="warn", what=what, mend="run `zoo fetch` first, then check again")
    from zoo.prompts import load_codec

    try:
        ids = load_codec(folder, prompt).label_ids
    except ZooError as error:
        return Finding(check="labels", verdict="fail", what=str(error), mend="change prompt.labels or the template's end")
    return Finding(check="labels", verdict="ok", what=f"{', '.join(prompt.labels)} are the tokens {', '.join(map(str, ids))}")
