"""Checks of the model: architecture, AWQ group size, context length, label tokens."""

from __future__ import annotations

from pathlib import Path

from zoo.checks.finding import Finding, fail, ok, warn
from zoo.checks.quantizers import SMOOTHED, quantizer_of, supported_decoders
from zoo.checks.rules import AWQ_GROUP_SIZES
from zoo.contracts import Head, PromptSpec, Quantizer, QuantizeSpec, Scheme, ScoreSpec, Shape
from zoo.errors import ZooError
from zoo.models.encoders import encoder_named
from zoo.models.heads import CLASSIFIERS
from zoo.models.shapes import linear_inputs
from zoo.settings import backend_interpreter


def check_architecture(architecture: str, quantize: QuantizeSpec, head: Head = "labels") -> Finding:
    """Whether the architecture can be quantized so.

    Where the entry's backend cannot, the finding names another that does; of a classifier, which autoawq alone takes,
    another scheme.
    """
    if quantize.scheme != "awq":
        return _check_smoothed(architecture, quantize.scheme)
    backend = quantize.backend
    able = quantizer_of(architecture, backend)
    if able == backend:
        return ok("architecture", f"{architecture}: {backend} and vLLM know it")
    what = f"{architecture} is not among the decoders that {backend} quantizes and vLLM scores"
    if head == "classifier" and architecture in SMOOTHED:
        return fail("architecture", what, 'set quantize.scheme = "int8"')
    mend = f'set quantize.backend = "{able}"' if able else f"choose a model among {supported_decoders()}"
    return fail("architecture", what, mend)


def check_backend(backend: Quantizer) -> Finding:
    """Whether this machine has what makes an AWQ checkpoint.

    Only a warning where it has not, since the target does not need it.
    """
    if backend == "autoawq":
        return ok("backend", "autoawq, in this environment")
    try:
        return ok("backend", f"{backend}: {backend_interpreter(backend)}")
    except ZooError as error:
        what, mend = str(error).split("; ", 1)
        return warn("backend", what, mend)


def _check_smoothed(architecture: str, scheme: Scheme) -> Finding:
    if architecture in SMOOTHED:
        return ok("architecture", f"{architecture}: {scheme} and vLLM know it")
    known = ", ".join(sorted(name.removesuffix("ForCausalLM") for name in SMOOTHED))
    what = f"{architecture} is not among the decoders that are quantized to {scheme} here: {known}"
    return fail("architecture", what, 'set quantize.scheme = "awq", or remove the variants of that form')


def check_head(head: Head, architecture: str) -> Finding:
    """Whether the architecture can have the head that an entry asks for."""
    if head == "labels":
        return ok("head", "labels: three rows of the vocabulary's head")
    if family := encoder_named(architecture):
        return ok("head", f"classifier: {family}'s own, three outputs")
    if architecture in CLASSIFIERS:
        return ok("head", f"classifier: {CLASSIFIERS[architecture]}, three outputs")
    known = ", ".join(sorted(name.removesuffix("ForCausalLM") for name in CLASSIFIERS))
    return fail("head", f"{architecture} has no classifier here, only {known}", "set head = 'labels'")


def check_group_size(quantize: QuantizeSpec, shape: Shape) -> Finding:
    if quantize.scheme in ("int8", "fp8"):
        return ok("group size", f"{quantize.scheme}: a scale an output channel, whatever quantize.group_size is")
    group, inputs = quantize.group_size, linear_inputs(shape)
    misfits = [size for size in inputs if size % group]
    if misfits:
        fits = [g for g in AWQ_GROUP_SIZES if all(size % g == 0 for size in inputs)]
        mend = f"set quantize.group_size = {max(fits)}" if fits else "no usual group size divides this model"
        return fail("group size", f"{group} does not divide the layer size of {misfits[0]}", mend)
    if group not in AWQ_GROUP_SIZES:
        what = f"{group}: vLLM's fast AWQ kernels take {', '.join(map(str, AWQ_GROUP_SIZES))}"
        return warn("group size", what, "set quantize.group_size = 128 or 64")
    return ok("group size", f"{group}: divides every layer")


def check_context(prompt: PromptSpec, score: ScoreSpec, shape: Shape) -> Finding:
    longest = max(prompt.max_tokens, *(v.max_tokens or 0 for v in score.variants))
    limit = shape.max_position_embeddings
    if limit is None:
        return ok("context", f"{longest} a row; the model's config names no limit")
    if longest >= limit:  # the engine needs room for the token that follows
        what = f"{longest} tokens a row and the label after it; the model was made for {limit}"
        return fail("context", what, "lower max_tokens in [prompt] and [score]")
    return ok("context", f"{longest} of {limit}")


def check_labels(prompt: PromptSpec, folder: Path | None, known: tuple[int, ...] = ()) -> Finding:
    """Labels must be one token each, and different ones, where they follow the template.

    `known`: the tokens, where the tokenizer was asked already.
    """
    if folder is None:
        what = f"{', '.join(prompt.labels)}: not checked, the tokenizer is not at hand"
        return warn("labels", what, "run `zoo fetch` first, then check again")
    from zoo.models.prompts import bounded_label_ids

    try:
        ids = known or bounded_label_ids(folder, prompt)
    except ZooError as error:
        return fail("labels", str(error), "change prompt.labels or the template's end")
    return ok("labels", f"{', '.join(prompt.labels)} are the tokens {', '.join(map(str, ids))}")
