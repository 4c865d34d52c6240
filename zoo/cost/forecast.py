"""Forecast seconds on a target: measured, scaled or from published run times.

The best basis at hand is taken. `measured`: the member ran on a machine of the target's kind. `scaled`: it ran on another, and
both matmul rates are known. `published`: floating-point operations at the rates that published run times of two T4s show.
`rates`: the same, together with rates that such a target measured of itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from zoo.checks.layouts import TIGHT, layout_memory
from zoo.contracts import (
    Contract,
    Cost,
    Entry,
    Manifest,
    QuantizeRequest,
    Scheme,
    ScoreCard,
    ServeSpec,
    Shape,
    Variant,
    entry_of_form,
    forms_of,
)
from zoo.cost.basis import (
    comparable_rates,
    copies_of,
    form_change,
    form_speed,
    has_own_rates,
    is_t4,
    published_cost,
    quantized_as,
    rates_on,
    scaled_cost,
    shape_of,
    t4_ratio,
)
from zoo.cost.fit import row_seconds
from zoo.cost.interval import Interval, beyond_measured, file_seconds, spread_factor, totals_of
from zoo.cost.lengths import File
from zoo.cost.published import ATTENTION_SHARE, DECLARED_RATES_SPREAD, MATMUL_SHARE, load_published
from zoo.errors import ZooError
from zoo.models.memory import GIB, CardMemory
from zoo.models.shapes import flops_of_shape, linear_parameters
from zoo.pipeline.stage_table import SCORING
from zoo.store import list_artifacts
from zoo.targets import Target, is_of_kind, machine_fingerprint, matmul_rate

# Deviation of the logarithm where speed is carried over from one machine to another by the ratio of measured matmul rates, a
# guess.
MEASURED_RATES_SPREAD = 0.35
SIZE_SPREAD = 0.7  # of a model far smaller or larger than those of the published runs, a guess

# Of an encoder in transformers' 16-bit products beside decoders in 4 bits, a guess. The two submissions of DeBERTa that are
# known, base below 1 hour and large about 1.5 (25,000 rows, two T4s), lie within it (tests/zoo/cost/test_encoders.py).
ENCODER_SPREAD = 0.5

Basis = Literal["measured", "scaled", "published", "rates"]


class Forecast(Contract):
    """Seconds of scoring a file with one variant of an entry on the whole target.

    Loading is included. `submission_seconds`: the same as a Kaggle submission, whose machines took longer than an interactive
    run on the same kind. `cost`: of one copy, the likely one. `peak_bytes` of one device: over the runs that were measured,
    else by arithmetic. `assumed` and `extrapolates` are for people: what was taken for granted, and in what the forecast goes
    beyond what was measured.
    """

    entry: str
    variant: Variant
    target: str
    basis: Basis
    rows: int
    tokens: int
    seconds: Interval
    cost: Cost
    submission_seconds: Interval | None = None
    peak_bytes: Interval | None = None
    assumed: tuple[str, ...] = ()
    extrapolates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A member's cost as some run measured it.

    `scheme`: of the checkpoint that was scored; None where that is not known, as where it is no longer in the store.
    """

    card: ScoreCard
    manifest: Manifest
    scheme: Scheme | None = None


def forecast(entry: Entry, target: Target, file: File, stores: Sequence[Path]) -> list[Forecast]:
    """Every forecast that there is a basis for, variant by variant, the best basis first.

    ZooError where there is none.
    """
    known = measurements(entry, stores)
    found = [f for v in file.tokens for f in forecasts_of(entry, v, target, file, known)]
    if not found:
        mend = f"run `zoo cost {entry.name} --target {target.name} --lengths FILE --measure` on such a machine"
        raise ZooError(f"{entry.name} was never measured, and its speed on {target.name} cannot be told from shapes; {mend}")
    return found


def forecasts_of(entry: Entry, variant: Variant, target: Target, file: File, known: Sequence[Measured]) -> list[Forecast]:
    """The forecasts of one variant, the best basis first.

    Measurements of other forms of the entry say nothing of this one.
    """
    if entry.quantize is not None:
        plain = entry.quantize.scheme
        known = [m for m in known if (m.scheme or m.card.variant.form or plain) == (variant.form or plain)]
        if (variant.form or plain) in forms_of(entry):
            entry = entry_of_form(entry, variant.form or plain)
    on_kind = [m for m in known if is_of_kind(m.card.cost.machine, target)]
    elsewhere = [m for m in known if m not in on_kind and scaled_cost(entry, target, m.card.cost)]
    found = []
    if on_kind:
        found.append(_measured(entry, variant, target, file, nearest(on_kind, variant), on_kind))
    published = _published(entry, variant, target, file)
    scaled = _scaled(entry, variant, target, file, nearest(elsewhere, variant)) if elsewhere else None
    # Rates fitted to T4s are nearer to a T4 than another card's measurement; for any other machine it is the other way round.
    rest = (published, scaled) if is_t4(target) else (scaled, published)
    return found + [f for f in rest if f is not None]


def measurements(entry: Entry, stores: Sequence[Path]) -> list[Measured]:
    """Costs of an entry that were measured on some machine at its own speed, oldest first."""
    from zoo.scores.named import cards_of

    schemes = {
        artifact.fingerprint: artifact.manifest.request.spec.scheme
        for store in stores
        for artifact in list_artifacts(store, "quantize")
        if isinstance(artifact.manifest.request, QuantizeRequest)
    }
    found = []
    for artifact in (artifact for store in stores for artifact in list_artifacts(store, *SCORING)):
        model = artifact.manifest.request.inputs.get("model")
        scheme = schemes.get(model.fingerprint) if model else None
        found += [Measured(card, artifact.manifest, scheme) for card in cards_of(artifact.path) if card.entry == entry.name]
    return [m for m in found if m.card.cost.machine and not m.card.emulates]


def nearest(known: Sequence[Measured], variant: Variant) -> Measured:
    """The measurement to go by.

    Preferred, in this order, are those of this machine, of the same token cap and order, of the most rows, and the newest.
    """
    here = machine_fingerprint()

    def key(item: tuple[int, Measured]) -> tuple[bool, bool, bool, int, int]:
        cost, own = item[1].card.cost, item[1].card.variant
        same = own.reads == variant.reads
        return cost.machine == here, same, own == variant, cost.measured_rows, item[0]

    return max(enumerate(known), key=key)[1]


def _measured(
    entry: Entry, variant: Variant, target: Target, file: File, by: Measured, on_kind: Sequence[Measured]
) -> Forecast:
    cost, lengths = by.card.cost, file.tokens[variant]
    copies = copies_of(cost, target)
    here = machine_fingerprint()
    peaks = [m.manifest.measurements.peak_bytes for m in on_kind if m.manifest.measurements.peak_bytes]
    own = by.manifest.measurements.peak_bytes
    assumed = [*file.assumed, *_of_another_variant(by, variant)]
    if copies > 1:
        assumed.append(f"{copies} copies of the model, each with its share of the rows, at the speed of one")
    seconds = file_seconds(cost, lengths, rows=file.rows, copies=copies)
    same = [m for m in on_kind if m.card.cost.machine == cost.machine and row_seconds(m.card.cost, lengths).any()]
    runs = one_of_each_run(same, variant)
    if len(runs) > 1:
        spread = run_spread(runs, lengths)
        seconds = seconds.times(spread_factor(spread))
        assumed.append(f"{len(runs)} measurements of this machine differ by {math.expm1(spread):.0%} (one deviation)")
    return Forecast(
        **_facts(entry, variant, target, file),
        basis="measured",
        seconds=seconds,
        cost=cost.model_copy(update={"target": target.name}),
        submission_seconds=seconds.times(rates_on(target).rate(2)) if is_t4(target) else None,
        peak_bytes=Interval(low=min(peaks), likely=own, high=max(peaks)) if own else None,
        assumed=tuple(assumed),
        extrapolates=tuple(beyond_measured(cost, lengths, here if is_of_kind(here, target) else cost.machine)),
    )


def _scaled(entry: Entry, variant: Variant, target: Target, file: File, by: Measured) -> Forecast | None:
    """A measurement carried over from another machine; None where that cannot be done."""
    cost, lengths = by.card.cost, file.tokens[variant]
    carried = scaled_cost(entry, target, cost)
    if carried is None:
        return None
    compared = comparable_rates(target, cost.machine) if entry.base is not None else None
    spread = MEASURED_RATES_SPREAD if compared and compared[2] else DECLARED_RATES_SPREAD
    if compared is None:
        rates = "on processors: taken to be as fast as where it was measured"
    else:
        to, source, measured = compared
        how = "measured" if measured else "declared, not measured: `zoo target measure` narrows this"
        rates = f"scaled from {source / 1e12:.3g} to {to / 1e12:.3g} TFLOP/s a device ({how})"
    form = form_change(entry, target, cost.machine)
    spread = float(np.hypot(spread, form.spread))
    seconds = file_seconds(carried, lengths, rows=file.rows, copies=copies_of(carried, target)).times(spread_factor(spread))
    return Forecast(
        **_facts(entry, variant, target, file),
        basis="scaled",
        peak_bytes=predicted_bytes(entry, target),
        seconds=seconds,
        cost=carried,
        submission_seconds=seconds.times(rates_on(target).rate(2)) if is_t4(target) else None,
        assumed=(
            *file.assumed,
            *_of_another_variant(by, variant),
            rates,
            *([form.source] if form.source else []),
            "loading as where it was measured; bytes by the arithmetic of `zoo check`",
        ),
        extrapolates=(
            f"never ran on {target.name}",
            *beyond_measured(cost, lengths, cost.machine),
            f"measured on {cost.machine}",
            *_too_large(entry, target),
        ),
    )


def _published(entry: Entry, variant: Variant, target: Target, file: File) -> Forecast | None:
    """A forecast from the model's shape; None where the shape or the target's rate is not known."""
    shape, rate, cost = shape_of(entry), matmul_rate(target), published_cost(entry, target)
    if shape is None or rate is None or cost is None:
        return None
    totals = totals_of(file.tokens[variant], file.rows)
    work, fit = flops_of_shape(shape).split(totals) / target.devices, rates_on(target)
    scale, spread = t4_ratio(target) or 1.0, 0.0 if is_t4(target) else DECLARED_RATES_SPREAD
    size = _of_other_size(shape)
    spread = float(np.hypot(spread, SIZE_SPREAD)) if size else spread
    spread = float(np.hypot(spread, ENCODER_SPREAD)) if shape.encoder else spread
    form = form_speed(entry, target)
    spread = float(np.hypot(spread, form.spread))
    at_awq = work * np.array([1 / form.times, 1.0])  # rates are of 4 bit weights with 16 bit activations
    seconds_of = partial(fit.seconds, at_awq, scale=scale, spread=spread, start=cost.load_seconds)
    matmul, attention = fit.rate(0).likely * scale / 1e12, fit.rate(1).likely * scale / 1e12
    runs = sum(run.fit for run in load_published().runs)
    assumed = [
        *file.assumed,
        f"{work[0] / 1e15:.3g} and {work[1] / 1e15:.3g} PFLOP of linear layers and attention a device, at {matmul:.3g} and "
        f"{attention:.2g} TFLOP/s as fitted to {runs} published runs on two T4s (`benchmarks/cost_model.md`)",
        "bytes by the arithmetic of `zoo check`",
        f"{cost.load_seconds:.0f} s of start-up; {_compared(shape)}",
        *([form.source] if form.source else []),
        *_of_own_rates(target),
    ]
    if scale != 1.0:
        assumed.append(f"rates scaled by {scale:.3g}, the ratio of {'measured' if rate[1] else 'data sheet'} to T4 matmul rate")
    return Forecast(
        **_facts(entry, variant, target, file),
        basis="rates" if has_own_rates(target) else "published",
        peak_bytes=predicted_bytes(entry, target),
        seconds=seconds_of(),
        cost=cost,
        submission_seconds=seconds_of(submission=True) if is_t4(target) else None,
        assumed=tuple(assumed),
        extrapolates=(f"never ran on {target.name}", *size, *_too_large(entry, target)),
    )


def _compared(shape: Shape) -> str:
    """What the engine is taken to be as fast as."""
    if shape.encoder is None:
        return "engine and 4-bit kernels as fast as those runs' (bitsandbytes, AWQ in vLLM)"
    own = "and plain attention with its gathers " if shape.encoder == "DebertaV2" else ""
    return (
        f"16-bit products of transformers {own}as fast as those runs' decoders in 4 bits, within "
        f"{math.expm1(ENCODER_SPREAD):.0%} (one deviation, a guess); rows in batches by length, without padding"
    )


def _of_own_rates(target: Target) -> list[str]:
    """A note on the rates that the target measured of itself, where the forecast rests on them, too."""
    if not has_own_rates(target):
        return []
    found = target.measured
    named = {"matmul": found.matmul_flop_per_second.get("float16"), "attention": found.attention_flop_per_second}
    rates = " and ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in named.items() if rate)
    shares = f"scoring is taken to reach {MATMUL_SHARE:g} of the one and {ATTENTION_SHARE:g} of the other"
    return [f"these rates rest on what {target.measured_on} measured of itself, too: {rates}; {shares}"]


def _of_other_size(shape: Shape) -> list[str]:
    """A note where a model is far smaller or larger than those of the published runs."""
    sizes = [linear_parameters(own) for own in load_published().models.values()]
    own = linear_parameters(shape)
    if min(sizes) / 2 <= own <= 2 * max(sizes):
        return []
    which = "smaller: it waits for kernel launches and its host" if own < min(sizes) else "larger"
    return [f"published runs are of models of {min(sizes) / 1e9:.0f} to {max(sizes) / 1e9:.0f}B; this one is far {which}"]


def _facts(entry: Entry, variant: Variant, target: Target, file: File) -> dict[str, object]:
    tokens = round(float(totals_of(file.tokens[variant], file.rows)[1]))
    return {"entry": entry.name, "variant": variant, "target": target.name, "rows": file.rows, "tokens": tokens}


def run_spread(runs: Sequence[Measured], lengths: np.ndarray) -> float:
    """Deviation of the logarithm of what several measurements say of the same rows.

    One run cannot show that of itself.
    """
    return float(np.std([np.log(row_seconds(m.card.cost, lengths).sum()) for m in runs], ddof=1))


def one_of_each_run(known: Sequence[Measured], variant: Variant) -> list[Measured]:
    """Of each artifact the measurement nearest to a variant.

    Those of one run share its engine, its hour and its neighbours.
    """
    runs: dict[tuple[str, str], list[Measured]] = {}
    for one in known:
        runs.setdefault((one.manifest.stage, one.manifest.fingerprint), []).append(one)
    return [nearest(group, variant) for group in runs.values()]


def _of_another_variant(by: Measured, variant: Variant) -> list[str]:
    own = by.card.variant
    return [] if own == variant else [f"as fast as {own.slug}, which was measured"]


def predicted_bytes(entry: Entry, target: Target) -> Interval | None:
    """Peak bytes of one GPU by `zoo check`'s arithmetic, in the layout the entry serves in.

    None where it cannot be told.
    """
    card = _card_memory(entry, target)
    if card is None:
        return None
    return Interval(low=TIGHT * card.allocated, likely=card.allocated, high=(2 - TIGHT) * card.allocated)


def _card_memory(entry: Entry, target: Target) -> CardMemory | None:
    """What one GPU holds as the entry is served; None where it cannot be told."""
    shape = shape_of(entry)
    quantize = quantized_as(entry)
    if shape is None or not target.gpus or entry.base is None or entry.score is None:
        return None
    if quantize is None and entry.kind != "encoder":
        return None
    layout = entry.serve.get(target.name, ServeSpec()).layout
    return layout_memory(entry.base, quantize, entry.score, shape, target).get(layout)


def _too_large(entry: Entry, target: Target) -> list[str]:
    """That an entry would not start on a target, where its memory says so: hours alone would promise that it does."""
    card = _card_memory(entry, target)
    if card is None or card.total <= target.device_bytes:
        return []
    layout = entry.serve.get(target.name, ServeSpec()).layout
    return [
        f"likely too large to start: {card.total / GIB:.1f} of {target.device_bytes / GIB:.1f} GiB a device as {layout}; "
        f"`zoo check {entry.name} --target {target.name}` says which layout has room"
    ]
