"""How fast one GPU trains a shape with QLoRA, and in how much memory: the plain loop, then each lever by itself and together.

    python benchmarks/train_speed.py --shape llama-3-8b --case plain --case zoo-40 [--steps 8]
    python benchmarks/train_speed.py --case zoo-15 --case zoo-15-no-dropout --case zoo-t4 --case gemma-2-9b/zoo-t4-1k --steps 4

Weights are drawn at random and rounded to NF4 on the GPU: speed and memory only. Rows have log-normal lengths with a mean of
540 tokens, at most 1024, the same for every case. Tokens are those of rows, padding not counted; the share of the card's
matrix rate counts 4 floating-point operations a weight and token, forward and for the gradient of activations, the fewest there
can be: a pass computed again counts as time, not as work.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from random_weights import SHAPES

from zoo.contracts import Shape, TrainSpec
from zoo.models.prompts import Codec
from zoo.models.shapes import linear_parameters
from zoo.stages.device import compute_dtype, device, emulating, keep_to_share
from zoo.stages.train import adapters
from zoo.stages.train import stage as train
from zoo.stages.train.attention import training_attention
from zoo.stages.train.examples import Example
from zoo.stages.train.label_head import pad
from zoo.stages.train.learner import Learner
from zoo.targets import load_target

BATCH_ROWS, LABEL_IDS = 16, (32, 33, 34)
SPEC = TrainSpec(rank=16, alpha=32, batch_rows=BATCH_ROWS, micro_batch_tokens=8192, learning_rate=1e-4)


@dataclass(frozen=True)
class Case:
    """One way to train: what is fused, what is computed again, and how much memory it may take."""

    spec: TrainSpec = SPEC
    fused: bool = True
    plain: bool = False  # rows padded to the cap, whole-vocabulary loss, peft's layers, every layer computed again
    keep_weights: bool = False
    longest: int = 1024
    target: str | None = None  # that the card stands for


def capped(gib: float, tokens: int, target: str | None = None, **more: Any) -> Case:
    spec = SPEC.model_copy(update={"micro_batch_tokens": tokens, "gradient_checkpointing": True, "memory_gib": gib, **more})
    return Case(spec, target=target)


CASES = {
    "plain": Case(plain=True, fused=False, spec=SPEC.model_copy(update={"gradient_checkpointing": True})),
    "peft": Case(fused=False, spec=SPEC.model_copy(update={"gradient_checkpointing": True, "memory_gib": 1000.0})),
    "zoo-40": capped(40, 8192),
    "zoo-40-4k": capped(40, 4096),
    "zoo-40-16k": capped(40, 16384),
    "zoo-40-no-dropout": capped(40, 8192, dropout=0.0),
    "zoo-40-text": capped(40, 8192, dropout=0.0, objective="text"),
    "zoo-15": capped(15, 4096),
    "zoo-15-no-dropout": capped(15, 4096, dropout=0.0),
    "zoo-t4": capped(14.56, 4096, "t4", dropout=0.0),
    "zoo-t4-2k": capped(14.56, 2048, "t4", dropout=0.0),
    "zoo-t4-1k": capped(14.56, 1024, "t4", dropout=0.0),
    "zoo-140": capped(140, 16384),
    "row-1024": Case(
        SPEC.model_copy(update={"micro_batch_tokens": 1024, "gradient_checkpointing": True, "memory_gib": 1000.0})
    ),
}


def random_model(shape: dict[str, Any], spec: TrainSpec) -> Any:
    """A peft model of a shape on the GPU, linear layers in NF4, without a file."""
    import bitsandbytes as bnb
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=compute_dtype(), **training_attention(config))
    torch.manual_seed(0)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], random_nf4(module, bnb))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta and not (config.tie_word_embeddings and name == "lm_head.weight"):
            parent = model.get_submodule(name.rpartition(".")[0])
            drawn = torch.randn(tensor.shape, device=device(), dtype=tensor.dtype) * 0.02 if tensor.dim() > 1 else None
            value = torch.ones(tensor.shape, device=device(), dtype=tensor.dtype) if drawn is None else drawn
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            setattr(parent, name.rpartition(".")[2], torch.nn.Parameter(value, requires_grad=False) if is_parameter else value)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config).to(device())
    model.is_loaded_in_4bit = True
    return adapters.with_adapters(model, spec)


def random_nf4(linear: torch.nn.Linear, bnb: Any) -> Any:
    """A Linear4bit of the same shape with random weights."""
    new = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=compute_dtype(),
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    weight = torch.randn(linear.weight.shape, device=device(), dtype=compute_dtype()) * 0.02
    new.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4").to(device())
    return new


def rows_of(count: int, longest: int, vocabulary: int) -> list[Example]:
    """Battles of random tokens with log-normal lengths, mean 540, cut at `longest`."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(6.25, 0.6, count * 4))
    lengths = np.clip(lengths, 40, longest).astype(int)
    lengths = (lengths * (540 / lengths.mean())).clip(40, longest).astype(int)[:count]
    rows = [generator.integers(100, min(vocabulary, 30000), n).tolist() for n in lengths]
    labels = generator.integers(0, 3, count)
    targets = np.eye(3)[labels].tolist()
    return [
        Example(str(i), row, row, int(y), tuple(t)) for i, (row, y, t) in enumerate(zip(rows, labels, targets, strict=True))
    ]


def plain_step(learner: Learner, rows: list[Example], longest: int) -> None:
    """What a tutorial's loop does: rows of 8 padded to the cap, logits of every position over the whole vocabulary."""
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        ids, mask = pad([e.ab + [0] * (longest - len(e.ab)) for e in part], device())
        mask = (torch.arange(longest, device=device()) < torch.tensor([[len(e.ab)] for e in part], device=device())).long()
        wanted = torch.full_like(ids, -100)
        for i, e in enumerate(part):
            wanted[i, len(e.ab) - 1] = LABEL_IDS[e.label]
        with torch.autocast("cuda", dtype=compute_dtype()):
            loss = learner.model(input_ids=ids, attention_mask=mask, labels=wanted).loss
        (loss / 2).backward()
    learner.update(1e-4)


def measure(model: Any, shape: dict[str, Any], case: Case, steps: int) -> dict[str, Any]:
    """Tokens a second, peak memory and what was decided, over `steps` optimizer steps after three of warm-up.

    `step_seconds` has the warm-up's too: what a first case pays for being the first. `ready_seconds` were spent before them.
    """
    began = time.monotonic()
    codec = Codec(((),), (), lambda _: [], LABEL_IDS)
    learner = Learner(model, codec, case.spec, fused=case.fused)
    rows = rows_of((steps + 3) * BATCH_ROWS, case.longest, shape["vocab_size"])
    decided = {} if case.plain or not case.fused else learner.fit_memory(rows)
    if case.plain or not case.fused:
        from zoo.stages.train.activation_checkpoints import checkpoint_layers

        checkpoint_layers(adapters.causal_model(model), shape["num_hidden_layers"])
    if case.keep_weights:
        for m in learner.adapted:
            m.keep()
    plan = list(train.all_steps([len(e.ab) for e in rows], case.spec, steps + 3))
    step: Callable[[int], Any] = lambda i: train.train_step(learner, plan[i], rows, i, 1e-4)  # noqa: E731
    if case.plain:
        step = lambda i: plain_step(learner, rows[i * BATCH_ROWS : (i + 1) * BATCH_ROWS], case.longest)  # noqa: E731
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    ready_seconds = time.monotonic() - began
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 4)]
    ends[0].record()
    for i in range(steps + 3):
        step(i)
        ends[i + 1].record()
    torch.cuda.synchronize()
    step_seconds = [before.elapsed_time(after) / 1e3 for before, after in pairwise(ends)]
    seconds = sum(step_seconds[3:])
    done = [e for i in range(3, 3 + steps) for e in rows[i * BATCH_ROWS : (i + 1) * BATCH_ROWS]]
    if not case.plain:
        done = [rows[r] for i in range(3, 3 + steps) for batch in plan[i] for r in batch]
    tokens = sum(len(e.ab) for e in done)
    return {
        "tokens_per_second": tokens / seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        "allocator_retries": torch.cuda.memory_stats()["num_alloc_retries"],  # since the process began
        "padding": 0.0 if case.plain else train.padding_share([len(e.ab) for e in rows], case.spec),
        "micro_batches_a_step": float(np.mean([len(p) for p in plan])),
        "ready_seconds": ready_seconds,
        "step_seconds": [round(s, 3) for s in step_seconds],
        **decided,
    }


def matrix_rate(size: int = 8192) -> float:
    """Floating-point operations a second of a square 16-bit product on random data: the card's ceiling."""
    a, b = (torch.randn(size, size, device="cuda", dtype=compute_dtype()) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    started = time.monotonic()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    return 10 * 2 * size**3 / (time.monotonic() - started)


def profile_case(model: Any, shape: dict[str, Any], case: Case) -> str:
    """The kernels that one step spends its time in."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        measure(model, shape, case, 1)
    return str(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=28, max_name_column_width=60))


def timed_case(model: Any, shape: dict[str, Any], case: Case, steps: int, rate: float) -> dict[str, Any]:
    """What `measure` finds and its share of the card's `rate`, or what it fails with: memory that does not do is a finding."""
    known = Shape(**{key: value for key, value in shape.items() if key in Shape.model_fields})
    try:
        found = measure(model, shape, case, steps)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return {**found, "share_of_matrix_rate": found["tokens_per_second"] * 4 * linear_parameters(known) / rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3-8b", choices=sorted(SHAPES))
    parser.add_argument(
        "--case",
        action="append",
        required=True,
        type=case_name,
        metavar="NAME",
        help=f"of {', '.join(CASES)}; SHAPE/NAME is of another shape, NAME+keep keeps weights in 16 bits",
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--layers", type=int, help="fewer decoder layers than the shape has")
    parser.add_argument(
        "--as",
        dest="emulated",
        metavar="TARGET",
        help="keep to a smaller target, as zoo-t4 does by itself",
    )
    parser.add_argument("--profile", action="store_true", help="print the kernels of one step of each case instead")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # as the stage's process has it
    run_cases(parser.parse_args())


def case_name(text: str) -> str:
    """An argument that names a case, as it is."""
    shape, _, name = text.rpartition("/")
    if name.removesuffix("+keep") not in CASES or (shape and shape not in SHAPES):
        raise argparse.ArgumentTypeError(f"{text}: no such case or shape")
    return text


def run_cases(args: argparse.Namespace) -> None:
    """Every case that was asked for, one after the other, a line of JSON each."""
    rates: dict[str, float] = {}
    for text in args.case:
        shape_name, _, name = text.rpartition("/")
        case = replace(CASES[name.removesuffix("+keep")], keep_weights=name.endswith("+keep"))
        target = args.emulated or case.target
        with emulating(load_target(target) if target else None):
            torch.cuda.set_per_process_memory_fraction(1.0)
            kind = str(compute_dtype()).removeprefix("torch.")
            rates[kind] = rates.get(kind) or matrix_rate()
            keep_to_share()
            run_case(args, text, shape_name or args.shape, case, rates[kind])


def run_case(args: argparse.Namespace, name: str, shape_name: str, case: Case, rate: float) -> None:
    shape = {**SHAPES[shape_name]} | ({"num_hidden_layers": args.layers} if args.layers else {})
    target = args.emulated or case.target
    card = torch.cuda.get_device_name() + (f" as {target}" if target else "")
    kind = str(compute_dtype()).removeprefix("torch.")
    print(f"{card}, torch {torch.__version__}, {kind} {rate / 1e12:.0f} TFLOP/s, {shape_name}", flush=True)
    started = time.monotonic()
    model = random_model(shape, case.spec)
    if args.profile:
        print(profile_case(model, shape, case), flush=True)
    else:
        found = {"case": name, **timed_case(model, shape, case, args.steps, rate)}
        found["whole_seconds"] = time.monotonic() - started
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}), flush=True)
    del model
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
