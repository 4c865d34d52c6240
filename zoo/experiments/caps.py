"""Measure what of a battle a model should read: caps, shares, ends, templates, and hours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from zoo.checks.model import check_context
from zoo.contracts import (
    CapsRequest,
    Entry,
    Keep,
    PricedVariant,
    Request,
    Say,
    ScoreRequest,
    Shares,
    Variant,
    changed,
)
from zoo.cost.forecast import Measured, forecast, forecasts_of, measurements
from zoo.cost.lengths import File, file_of
from zoo.cost.measure import samples_folder
from zoo.cost.price import COMPETITION_ROWS
from zoo.errors import ZooError
from zoo.experiments.run import RunOptions, entry_chains, run_chain
from zoo.pipeline.chain import output_of
from zoo.pipeline.weights import fetched_folder
from zoo.scores.caps import CAPS, CapsReport
from zoo.scores.tables import OK, SCORES, read_columns
from zoo.store import Artifact
from zoo.targets import Target, is_of_kind, load_target, machine_fingerprint

USUAL_CAPS = (256, 512, 768, 1024, 1536, 2048)
Own = TypeVar("Own")  # of a setting of prompts: its value


@dataclass(frozen=True)
class Asked:
    """What is compared: every cap with every way to share it, to cut and to ask.

    The entry's own are among them. `caps` None: the usual ones that the model was made for.
    """

    caps: tuple[int, ...] | None = None
    shares: tuple[Shares, ...] = ()
    keep: tuple[Keep, ...] = ()
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """A finished comparison: its report, its figure, and what its hours assume."""

    report: CapsReport
    figure: Path
    assumed: tuple[str, ...]


def compare_caps(entry: Entry, asked: Asked, options: RunOptions, store: Path, *, say: Say) -> Compared:
    """Score an entry's checkpoint in every variant that is asked for, and compare them.

    Stages that are missing run first. The tables are for the comparison alone, never members.
    ZooError before anything runs where a variant cannot be scored or priced.
    """
    variants, reference = variants_of(entry, asked)
    wide = changed(entry, score=changed(entry.score, variants=variants)) if entry.score else entry
    check_variants(wide, store)
    check_priced(wide, options.target, store)
    (requests,) = entry_chains(wide, options, store, say=say)
    requests = [_apart(request) for request in requests]
    if fetched_folder(wide, store) is None:  # a template that cannot serve is refused before hours of training, not after
        run_chain(requests[:1], wide, store, say=say)
        check_variants(wide, store)
    say(f"{entry.name}: {len(variants)} variants: {', '.join(variant.slug for variant in variants)}")
    scored = run_chain(requests, wide, store, say=say)[-1]
    request = scored.manifest.request
    assert isinstance(request, ScoreRequest)
    priced, assumed = price_variants(wide, options.target, scored, store)
    caps = CapsRequest(
        entry=entry.name,
        scored=output_of(request, store),
        battles=requests[-1].inputs["battles"],
        held=request.held,
        priced=priced,
        reference=reference,
        target=options.target,
        rows=COMPETITION_ROWS,
    )
    made = run_chain([caps], entry, store, say=say)[-1]
    return Compared(CapsReport.model_validate_json((made.path / CAPS).read_text()), made.path / "caps.png", assumed)


def variants_of(entry: Entry, asked: Asked) -> tuple[tuple[Variant, ...], Variant]:
    """The variants to compare, and the one that the entry has itself.

    They have the order and the form of the entry's first, the battle's own order before the other. Small caps come first, so
    that longer ones take the scores of rows that fit. What is not said of a variant is as in [prompt].
    """
    if entry.prompt is None or entry.score is None:
        raise ZooError(f"{entry.name}: {entry.a_kind} reads no tokens; zoo caps is for language models")
    own, prompt = min(entry.score.variants, key=lambda variant: variant.order != "ab"), entry.prompt
    limit = entry.shape.max_position_embeddings if entry.shape else None
    caps = asked.caps or tuple(cap for cap in USUAL_CAPS if limit is None or cap < limit)
    ways = itertools.product(
        _with_own(own.template, asked.templates, prompt.template),
        _with_own(own.shares, asked.shares, prompt.shares),
        _with_own(own.keep, asked.keep, prompt.keep),
        sorted({*caps, own.max_tokens or prompt.max_tokens}),
    )
    found = [changed(own, template=template, shares=shares, keep=keep, max_tokens=cap) for template, shares, keep, cap in ways]
    return tuple(found), own


def _with_own(own: Own | None, asked: Sequence[Own], default: Own) -> list[Own | None]:
    """The entry's own, then what is asked for, each once; None is what [prompt] says."""
    meant = default if own is None else own
    others = [None if value == default else value for value in asked if value != meant]
    return list(dict.fromkeys([own, *others]))


def check_variants(entry: Entry, store: Path) -> None:
    """ZooError where a cap is beyond the model's context, or a template cannot serve.

    The latter is known where the tokenizer is at hand.
    """
    if entry.prompt is None or entry.score is None:
        return
    if entry.shape is not None:
        found = check_context(entry.prompt, entry.score, entry.shape)
        if found.verdict == "fail":
            raise ZooError(f"{entry.name}: {found.what}; leave such caps out")
    folder = fetched_folder(entry, store)
    if folder is not None:
        from zoo.models.prompts import load_codecs

        load_codecs(folder, entry.prompt, entry.score.variants)


def check_priced(entry: Entry, target: str, store: Path) -> None:
    """ZooError where hours on the target could not be told even after scoring on this machine."""
    machine = load_target(target)
    if not is_of_kind(machine_fingerprint(), machine):
        forecast(entry, machine, file_of(entry, None, None, None), [store, samples_folder()])


def _apart(request: Request) -> Request:
    """A score request whose tables are no members."""
    if not isinstance(request, ScoreRequest):
        return request
    return request.model_copy(update={"selection": changed(request.selection, diagnostic=True)})


def price_variants(
    entry: Entry, target: str, scored: Artifact, store: Path
) -> tuple[tuple[PricedVariant, ...], tuple[str, ...]]:
    """The hours of every variant for a file of such rows, and what they assume.

    All go by one measurement, since runs differ by what the machine did besides: one on a machine of the target's kind where
    there is any, the comparison's own scoring before others. Of what they assume that is told which is of all variants; in
    what they go beyond a measurement, of each.
    """
    machine, request = load_target(target), scored.manifest.request
    assert isinstance(request, ScoreRequest)
    lengths = {variant: _lengths(scored, variant) for variant in request.spec.variants}
    file = File(COMPETITION_ROWS, lengths, ())
    by = _measurement(entry, request.spec.variants[0], machine, scored, store)
    found, assumed, beyond = [], [], dict[str, list[str]]()
    for variant in request.spec.variants:
        best = next(iter(forecasts_of(entry, variant, machine, file, by)), None)
        if best is None:
            raise ZooError(f"{entry.name}: its speed on {target} cannot be told; see `zoo cost {entry.name} --target {target}`")
        low, likely, high = best.seconds.low, best.seconds.likely, best.seconds.high
        found.append(PricedVariant(variant=variant, hours=(low / 3600, likely / 3600, high / 3600)))
        assumed.append([f"hours: {best.basis}, as `zoo cost` says", *best.assumed])
        for note in best.extrapolates:
            beyond.setdefault(note, []).append(variant.slug)
    common = [note for note in assumed[0] if all(note in notes for notes in assumed)]
    where = [f"goes beyond: {note}" + (f" ({', '.join(who)})" if len(who) < len(found) else "") for note, who in beyond.items()]
    return tuple(found), (*common, *where)


def _measurement(entry: Entry, variant: Variant, machine: Target, scored: Artifact, store: Path) -> list[Measured]:
    """The measurement of the variant's form that hours go by; none where there is none."""
    plain = entry.quantize.scheme if entry.quantize else None
    known = [
        m
        for m in measurements(entry, [store, samples_folder()])
        if (m.scheme or m.card.variant.form or plain) == (variant.form or plain)
    ]
    best = [m for m in known if is_of_kind(m.card.cost.machine, machine)] or known
    best = [m for m in best if m.manifest.fingerprint == scored.fingerprint] or best
    return [max(best, key=lambda m: m.card.cost.measured_tokens)] if best else []


def _lengths(scored: Artifact, variant: Variant) -> np.ndarray:
    """Tokens (rows,) of what was scored."""
    frame = read_columns(scored.path / variant.slug / SCORES, ["n_tokens", "status"])
    return frame.loc[frame["status"] == OK, "n_tokens"].to_numpy(dtype=np.float64)
