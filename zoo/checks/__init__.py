"""`zoo check`: what of an entry fits a target, told before any hour is spent.

Arithmetic on shapes and the rules of vLLM and AutoAWQ (`zoo.checks.rules`); nothing is loaded or fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from zoo.checks.encoders import check_encoder, check_transformers_here
from zoo.checks.finding import Finding, Verdict, fail, ok, warn
from zoo.checks.kernels import check_attention, check_dtype, check_engine, check_kernel, engine_at_hand
from zoo.checks.layouts import check_layout, check_memory, check_training, layout_memory, training_need
from zoo.checks.model import check_architecture, check_backend, check_context, check_group_size, check_head, check_labels
from zoo.checks.quantizers import quantizer_of, supported_decoders
from zoo.checks.rules import AWQ_GROUP_SIZES, FLOAT16_REFUSED, RESCALABLE, RESCALE_BITS
from zoo.contracts import (
    Base,
    Entry,
    PromptSpec,
    Scheme,
    ScoreSpec,
    ServeSpec,
    Shape,
    changed,
    entry_of_form,
    forms_of,
    spec_of_form,
)
from zoo.errors import ZooError
from zoo.models.encoders import encoder_named
from zoo.models.shapes import of_head, read_config, shape_of_config
from zoo.targets import Target

__all__ = [
    "AWQ_GROUP_SIZES",
    "FLOAT16_REFUSED",
    "RESCALABLE",
    "RESCALE_BITS",
    "Finding",
    "Verdict",
    "check_entry",
    "check_head",
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
    Of an entry with several forms nothing fails as long as one of them runs: what does not is a warning, by its form.
    """
    if entry.kind == "encoder" and entry.base and entry.prompt and entry.score:
        return _of_encoder(
            entry, target, entry.base, entry.prompt, entry.score, model_folder, train=train, known=bool(label_ids)
        )
    if entry.base is None or entry.prompt is None or entry.quantize is None or entry.score is None:
        return [ok("memory", f"{entry.kind}: no GPU needed")]
    base, made_so = entry.base, entry.elsewhere is not None and entry.elsewhere.quantized
    serve, engine = entry.serve.get(target.name, ServeSpec()), engine or target.engine or engine_at_hand()
    forms = {form: spec_of_form(entry.quantize, form) for form in forms_of(entry)}
    findings = [
        *([] if made_so else _of_forms(forms, lambda form: [check_architecture(base.architecture, forms[form], entry.head)])),
        *([check_backend(forms["awq"].backend)] if "awq" in forms and not made_so else []),
        *([check_head(entry.head, base.architecture)] if entry.head != "labels" else []),
        check_engine(serve, engine, entry.head),
        check_dtype(entry.base, entry.score, serve, target),
        *_of_forms(forms, lambda form: [check_kernel(forms[form], target)]),
        check_labels(entry.prompt, model_folder, label_ids),
    ]
    try:
        shape = entry_shape(entry, model_folder)
    except ZooError as error:
        return [*_while_one_runs(findings, forms), fail("shape", str(error), "give the folder of a complete model")]
    if shape is None:
        mend = "run `zoo fetch` first, or copy its sizes into the entry's [shape]"
        return [
            *_while_one_runs(findings, forms),
            warn("shape", "the model's sizes are unknown: memory, attention, groups and context not checked", mend),
        ]
    findings += [
        check_attention(shape, serve, target, engine),
        *_of_forms(forms, lambda form: [check_group_size(forms[form], shape)]),
        check_context(entry.prompt, entry.score, shape),
        *_of_forms(forms, lambda form: [check_layout(forms[form], serve, shape, target)]),
        *_of_forms(forms, lambda form: _memory_of(entry, form, serve, shape, target)),
    ]
    findings = _while_one_runs(findings, forms)
    return [*findings, check_training(entry.base, entry.train, shape, target)] if train and entry.train else findings


def _of_encoder(
    entry: Entry,
    target: Target,
    base: Base,
    prompt: PromptSpec,
    score: ScoreSpec,
    model_folder: Path | None,
    *,
    train: bool,
    known: bool,
) -> list[Finding]:
    try:
        shape = shape_of_config(read_config(model_folder)) if model_folder else entry_shape(entry)
    except ZooError as error:
        return [fail("shape", str(error), "give the folder of a complete model")]
    findings = check_encoder(
        base,
        prompt,
        score,
        entry.train if train else None,
        shape,
        serve=entry.serve.get(target.name, ServeSpec()),
        target=target,
        model_folder=model_folder,
        known=known,
    )
    return [check_transformers_here(), *findings]


def _while_one_runs(findings: list[Finding], forms: Iterable[Scheme]) -> list[Finding]:
    """Findings in which a form that does not run is a warning, where another does."""
    names = {form: f", {form}" for form in forms}
    failing = {form for form, name in names.items() for f in findings if f.verdict == "fail" and f.check.endswith(name)}
    if len(failing) == len(names) or not failing:
        return findings
    ends = tuple(names[form] for form in failing)
    left = "its variants do not run here, those of other forms do"
    return [
        warn(f.check, f"{f.what}: {left}", f"{f.mend}, or leave the form out of score.variants")
        if f.verdict == "fail" and f.check.endswith(ends)
        else f
        for f in findings
    ]


def _of_forms(forms: Iterable[Scheme], check: Callable[[Scheme], list[Finding]]) -> list[Finding]:
    """What a check finds of each form, named by it where there are several."""
    found = {form: check(form) for form in forms}
    if len(found) == 1:
        return [finding for findings in found.values() for finding in findings]
    return [
        finding.model_copy(update={"check": f"{finding.check}, {form}"})
        for form, findings in found.items()
        for finding in findings
    ]


def _memory_of(entry: Entry, form: Scheme, serve: ServeSpec, shape: Shape, target: Target) -> list[Finding]:
    score = entry_of_form(entry, form).score
    assert entry.base is not None and entry.quantize is not None and score is not None
    memory = layout_memory(entry.base, spec_of_form(entry.quantize, form), score, shape, target)
    return check_memory(memory, serve, score, target)


def entry_shape(entry: Entry, model_folder: Path | None = None) -> Shape | None:
    """The sizes of an entry's model with its head: its fetched config.json, else its `[shape]`.

    None where neither is there.
    """
    shape = shape_of_config(read_config(model_folder)) if model_folder else entry.shape
    if shape is None:
        return None
    family = encoder_named(entry.base.architecture) if entry.kind == "encoder" and entry.base else None
    return of_head(changed(shape, encoder=family) if family else shape, entry.head)
