"""`zoo check`: what of an entry fits a target, told before any hour is spent.

Arithmetic on shapes and the rules of vLLM and AutoAWQ (`zoo.checks.rules`); nothing is loaded or fetched.
"""

from __future__ import annotations

from pathlib import Path

from zoo.checks.finding import Finding, Verdict, fail, ok, warn
from zoo.checks.kernels import check_attention, check_dtype, check_engine, check_kernel, engine_at_hand
from zoo.checks.layouts import check_layout, check_memory, check_training, layout_memory, training_need
from zoo.checks.model import check_architecture, check_context, check_group_size, check_labels
from zoo.checks.quantizers import quantizer_of, supported_decoders
from zoo.checks.rules import AWQ_GROUP_SIZES, FLOAT16_REFUSED, RESCALABLE, RESCALE_BITS
from zoo.contracts import Entry, ServeSpec, Shape
from zoo.errors import ZooError
from zoo.models.shapes import read_config, shape_of_config
from zoo.targets import Target

__all__ = [
    "AWQ_GROUP_SIZES",
    "FLOAT16_REFUSED",
    "RESCALABLE",
    "RESCALE_BITS",
    "Finding",
    "Verdict",
    "check_entry",
    "entry_shape",
    "quantizer_of",
    "supported_decoders",
    "training_need",
]


def check_entry(
    entry: Entry,
    target: Target,
    *,
    model_folder: Path | None = None,
    train: bool = False,
    engine: str | None = None,
    label_ids: tuple[int, ...] = (),
) -> list[Finding]:
    """What holds for an entry on a target.

    Sizes come from the model's folder (config.json, tokenizer.json) where it is given, else from the entry's `[shape]`.
    `train`: training on one of its cards too. `engine`: the version of vLLM there; None is the one that the target names, or
    else the one installed here.
    `label_ids`: the tokens of the labels, where that folder's tokenizer was asked already.
    """
    if entry.base is None or entry.prompt is None or entry.quantize is None or entry.score is None or entry.train is None:
        return [ok("memory", f"{entry.kind}: no GPU needed")]
    serve, engine = entry.serve.get(target.name, ServeSpec()), engine or target.engine or engine_at_hand()
    findings = [
        check_architecture(entry.base.architecture, entry.quantize),
        check_engine(serve, engine),
        check_dtype(entry.base, entry.score, serve, target),
        check_kernel(entry.quantize, target),
        check_labels(entry.prompt, model_folder, label_ids),
    ]
    try:
        shape = entry_shape(entry, model_folder)
    except ZooError as error:
        return [*findings, fail("shape", str(error), "give the folder of a complete model")]
    if shape is None:
        mend = "run `zoo fetch` first, or copy its sizes into the entry's [shape]"
        return [
            *findings,
            warn("shape", "the model's sizes are unknown: memory, attention, groups and context not checked", mend),
        ]
    findings += [
        check_attention(shape, serve, target, engine),
        check_group_size(entry.quantize, shape),
        check_context(entry.prompt, entry.score, shape),
        check_layout(entry.quantize, serve, shape, target),
        *check_memory(layout_memory(entry.base, entry.quantize, entry.score, shape, target), serve, entry.score, target),
    ]
    return [*findings, check_training(entry.base, entry.train, shape, target)] if train else findings


def entry_shape(entry: Entry, model_folder: Path | None = None) -> Shape | None:
    """The sizes of an entry's model: its fetched config.json, else its `[shape]`.

    None where neither is there.
    """
    return shape_of_config(read_config(model_folder)) if model_folder else entry.shape
