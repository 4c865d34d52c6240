"""Checks of memory: each layout of the model on the target's cards, and training."""

from __future__ import annotations

from typing import get_args

from zoo.checks.finding import Finding, fail, info, ok, warn
from zoo.checks.rules import FOUR_NORMS, awq_converted
from zoo.contracts import Base, QuantizeSpec, ScoreSpec, ServeSpec, Shape, TrainSpec
from zoo.models.memory import (
    GEMMA_NORMS,
    GIB,
    CardMemory,
    Layout,
    TrainingMemory,
    encoder_memory,
    scoring_memory,
    training_memory,
)
from zoo.models.shapes import linear_layers, weight_bits
from zoo.targets import Target

TIGHT = 0.95  # above this share of a card's memory it may or may not start: the prediction is good to 5 %


def layout_memory(
    base: Base, quantize: QuantizeSpec | None, score: ScoreSpec, shape: Shape, target: Target
) -> dict[Layout, CardMemory]:
    """What each layout that the target offers takes of its fullest card.

    `quantize` None: of an encoder, which is on one card.
    """
    if quantize is None:
        return {
            "replicas": encoder_memory(
                shape,
                parameters=base.parameters,
                max_batched_tokens=score.max_batched_tokens,
                longest=max(variant.max_tokens or 0 for variant in score.variants),
                wide=not target.gpus,
            )
        }
    layouts: tuple[Layout, ...] = get_args(Layout) if target.gpus > 1 else ("replicas",)
    return {
        layout: scoring_memory(
            shape,
            parameters=base.parameters,
            bits=weight_bits(quantize),
            layout=layout,
            gpus=target.gpus,
            max_batched_tokens=score.max_batched_tokens,
            max_seqs=score.max_seqs,
            longest=max(variant.max_tokens or 0 for variant in score.variants),
            kv_cache_bytes=score.kv_cache_bytes,
            converted=quantize.scheme == "awq"
            and awq_converted(target.compute_capability, quantize.backend, quantize.group_size),
        )
        for layout in layouts
    }


def best_layout(memory: dict[Layout, CardMemory], room: float) -> Layout | None:
    """The first that fits of replicas, pipeline, tensor: no traffic between cards, little, much.

    None where none fits.
    """
    return next((layout for layout in get_args(Layout) if layout in memory and memory[layout].total <= room), None)


def check_memory(memory: dict[Layout, CardMemory], serve: ServeSpec, score: ScoreSpec, target: Target) -> list[Finding]:
    """A finding for each layout.

    Only the one that the entry takes can fail: the others say what else there would be.
    """
    room = min(target.device_bytes, serve.gpu_memory_bytes or target.device_bytes)
    findings = []
    for layout, card in memory.items():
        name, what = f"memory, {layout}", f"{_parts(card)} of {room / GIB:.1f} GiB a device"
        if layout == serve.layout:
            findings.append(_taken(name, f"{what} (taken)", card, memory, room, score, target))
        else:
            findings.append(ok(name, what) if card.total <= room else info(name, f"{what}: would not fit"))
    return findings


def _parts(card: CardMemory) -> str:
    """The larger of serving and loading by part, and serving's sum where loading is larger."""
    fixed = {"engine": card.workspace + card.context}
    serving = {"weights": card.weights, "cache": card.cache, "activations": card.activations, **fixed}
    if card.serving >= card.loading:
        return _listed(card.total, "", serving)
    loading = {"weights": card.weights, "one matrix unpacked": card.conversion, "engine": card.context}
    return f"{_listed(card.total, ' to load', loading)}, {_listed(card.serving + card.context, ' to serve', serving)}"


def _listed(total: int, what: str, parts: dict[str, int]) -> str:
    return f"{total / GIB:.1f}{what} ({', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items())})"


def _taken(
    name: str, what: str, card: CardMemory, memory: dict[Layout, CardMemory], room: int, score: ScoreSpec, target: Target
) -> Finding:
    """The finding of a layout that is too large, with the cheapest mend that is enough.

    Fewer tokens a batch change nothing of what loading takes.
    """
    if card.total <= TIGHT * room:
        return ok(name, what)
    tight = card.total <= room
    wanted = TIGHT * room if tight else room
    fewer = f"lower score.max_batched_tokens ({score.max_batched_tokens})" if card.least < wanted else ""
    other = best_layout(memory, wanted)
    mends = [fewer, f'set serve.{target.name}.layout = "{other}"' if other else ""]
    mend = next((m for m in (mends if tight else reversed(mends)) if m), "choose a smaller model or a larger target")
    return warn(name, f"{what}: tight", mend) if tight else fail(name, what, mend)


def check_layout(quantize: QuantizeSpec, serve: ServeSpec, shape: Shape, target: Target) -> Finding:
    """Whether the entry's layout is possible on this target, and whether it is wise there."""
    place = f"serve.{target.name}.layout"
    if serve.layout == "replicas":
        return ok("layout", f"replicas: {target.devices}, one a device")
    if target.gpus < 2:
        what = f"{serve.layout} needs two GPUs, {target.name} has {target.gpus}"
        return fail("layout", what, f'set {place} = "replicas"')
    if serve.layout == "tensor":
        group = quantize.group_size if quantize.scheme in ("awq", "w4a8") else 1
        misfit = _tensor_misfit(group, shape, target.gpus)
        if misfit:
            return fail("layout", f"tensor: {misfit} cannot be shared by {target.gpus} GPUs", f'set {place} = "pipeline"')
        if target.interconnect != "nvlink":
            what = "tensor parallel without NVLink sends two all-reduces a layer through host memory"
            return warn("layout", what, f'set {place} = "pipeline"')
    return ok("layout", f"{serve.layout}: one copy over {target.gpus} GPUs")


def _tensor_misfit(group: int, shape: Shape, gpus: int) -> str:
    """What of a model does not divide by the number of GPUs.

    That is heads, or an input that is cut within one of AWQ's groups.
    """
    if shape.num_attention_heads % gpus:
        return f"{shape.num_attention_heads} attention heads"
    cut = [linear_layers(shape)[name][0] for name in ("o_proj", "down_proj")]  # the others are cut by their outputs
    misfits = [size for size in cut if size % (gpus * group)]
    return f"groups of {group} of {misfits[0]} inputs" if misfits else ""


def check_training(base: Base, train: TrainSpec, shape: Shape, target: Target) -> Finding:
    """What training takes of one card.

    Each of `train.gpus` holds the whole model and its own micro-batch.
    """
    if train.gpus > max(1, target.gpus):
        what = f"train.gpus = {train.gpus}, {target.name} has {target.gpus}"
        return fail("training GPUs", what, f"set train.gpus = {max(1, target.gpus)}")
    need = training_need(base, train, shape, target)
    room = target.device_bytes
    what = f"{train.method}, {train.micro_batch_tokens} tokens a pass: {_training_parts(need)} of {room / GIB:.1f} GiB"
    if need.total <= TIGHT * room:
        return ok("training memory", what)
    if need.total <= room:
        return warn("training memory", f"{what}: tight", f"lower train.micro_batch_tokens ({train.micro_batch_tokens})")
    return fail("training memory", what, _training_mend(train, need, room, encoder=shape.encoder is not None))


def training_need(base: Base, train: TrainSpec, shape: Shape, target: Target | None = None) -> TrainingMemory:
    """What training takes of each of its cards, by default of cards that have bfloat16."""
    float16 = target is not None and "bfloat16" not in target.dtypes
    norms = GEMMA_NORMS if base.architecture in FOUR_NORMS else 2
    return training_memory(shape, train, parameters=base.parameters, norms=norms, float16=float16)


def _training_parts(need: TrainingMemory) -> str:
    parts = {
        "base": need.base,
        "trained weights and gradients": need.adapters,
        "optimizer": need.optimizer,
        "checkpoints": need.checkpoints,
        "activations": need.activations,
        "logits": need.logits,
        "CUDA": need.workspace + need.context,
    }
    return _listed(need.total, "", {name: size for name, size in parts.items() if size})


def _training_mend(train: TrainSpec, need: TrainingMemory, room: int, *, encoder: bool) -> str:
    """The cheapest change that is enough for training.

    In this order: checkpoints, fewer tokens a pass, another method or machine.
    """
    batch = need.checkpoints + need.activations
    fixed = need.total - batch
    if not train.gradient_checkpointing and fixed < room:
        return "set train.gradient_checkpointing = true"
    tokens = int(train.micro_batch_tokens * max(0.0, TIGHT * room - fixed) / batch) // 256 * 256
    if tokens >= 1024:
        return f"set train.micro_batch_tokens = {tokens}"
    if train.method != "qlora" and not encoder:
        return 'set train.method = "qlora"'
    return "train on a larger card, or choose a smaller model"
