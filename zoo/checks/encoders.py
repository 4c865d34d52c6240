"""Checks of an encoder on a target: engine, dtype, prompt, length and memory.

It fits one card, and is not quantized.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from zoo.checks.finding import Finding, fail, ok, warn
from zoo.checks.layouts import check_memory, check_training, layout_memory
from zoo.checks.model import check_head
from zoo.contracts import Base, PromptSpec, ScoreSpec, ServeSpec, Shape, TrainSpec
from zoo.errors import ZooError
from zoo.models.encoders import classifier_name
from zoo.targets import Target


def check_encoder(
    base: Base,
    prompt: PromptSpec,
    score: ScoreSpec,
    train: TrainSpec | None,
    shape: Shape | None,
    *,
    serve: ServeSpec,
    target: Target,
    model_folder: Path | None,
    known: bool = False,
) -> list[Finding]:
    """What holds for an encoder on a target.

    `train` None: training is not checked. `known`: whether that folder's tokenizer was asked already.
    """
    findings = [
        check_head("classifier", base.architecture),
        _check_dtype(score, serve, target),
        _check_template(prompt, model_folder, known=known),
    ]
    if shape is None:
        what = "the model's sizes are unknown: memory and length not checked"
        return [*findings, warn("shape", what, "run `zoo fetch` first, or copy its sizes into the entry's [shape]")]
    if shape.encoder is None or classifier_name(shape.encoder) != base.architecture:
        what = f"{base.architecture}, and the model's config.json is {shape.encoder or 'of no encoder'}"
        return [*findings, fail("shape", what, "correct base.architecture")]
    findings.append(_check_length(prompt, score, shape))
    findings += check_memory(layout_memory(base, None, score, shape, target), serve, score, target)
    return [*findings, check_training(base, train, shape, target)] if train else findings


def check_transformers_here() -> Finding:
    """Whether this environment has what scores encoders."""
    try:
        return ok("engine", f"transformers {importlib.metadata.version('transformers')}")
    except importlib.metadata.PackageNotFoundError:
        return warn("engine", "not checked: no transformers here", "install the package's `cpu` or `cuda` extra")


def _check_dtype(score: ScoreSpec, serve: ServeSpec, target: Target) -> Finding:
    declared = serve.dtype if serve.dtype != "auto" else score.dtype
    if declared == "auto":
        return ok("dtype", "float16 on GPUs, the classifier in float32" if target.gpus else "float32 on processors")
    if declared not in target.dtypes:
        what = f"{target.name} has no {declared}"
        return fail("dtype", what, f'set serve.{target.name}.dtype = "{target.dtypes[0]}"')
    return ok("dtype", f"{declared}, the classifier in float32")


def _check_template(prompt: PromptSpec, folder: Path | None, *, known: bool) -> Finding:
    if folder is None:
        return warn("template", "not checked, the tokenizer is not at hand", "run `zoo fetch` first, then check again")
    from zoo.models.prompts import bounded_label_ids

    try:
        if not known:
            bounded_label_ids(folder, prompt)
    except ZooError as error:
        return fail("template", str(error), "change prompt.template")
    return ok("template", "begins with the special token that the classifier reads")


def _check_length(prompt: PromptSpec, score: ScoreSpec, shape: Shape) -> Finding:
    longest, limit = max(prompt.max_tokens, *(v.max_tokens or 0 for v in score.variants)), shape.max_position_embeddings
    if limit is None:
        return ok("context", f"{longest} a row; the model's config names no limit")
    if longest <= limit:
        return ok("context", f"{longest} of {limit}")
    what = f"{longest} tokens a row; the model was made for {limit}"
    if shape.encoder in ("Bert", "Roberta"):
        return fail("context", f"{what}, and has no position beyond", "lower max_tokens in [prompt] and [score]")
    if shape.encoder == "DebertaV2":
        return ok("context", f"{what}: it counts distances, and takes all far ones for one")
    return warn("context", what, "lower max_tokens in [prompt] and [score]")
