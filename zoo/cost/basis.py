"""Costs of an entry where it never ran: from another machine's, or from its shape.

`forecast` puts intervals and reasons to them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from zoo.checks import entry_shape
from zoo.contracts import Cost, Entry, QuantizeSpec, ServeSpec, Shape, forms_of, spec_of_form
from zoo.cost.forms import FormSpeed, speed_of
from zoo.cost.published import ENGINE_SECONDS, START_SECONDS, RateFit, published_machine, published_rates
from zoo.models.shapes import embedding_parameters, flops_of_shape, linear_parameters, quantized_bytes, weight_bits
from zoo.targets import Rates, Target, is_of_kind, list_targets, matmul_rate
from zoo.targets.capabilities import Capability

TERMS = ("seconds_per_row", "seconds_per_token", "seconds_per_token_sq")


def copy_gpus(entry: Entry, target: Target) -> int:
    """How many of the target's GPUs one copy takes, in the layout that it serves in there."""
    if entry.base is None:
        return 0
    return min(target.gpus, 1) if entry.serve.get(target.name, ServeSpec()).layout == "replicas" else target.gpus


def copies_of(cost: Cost, target: Target) -> int:
    """How many copies work side by side.

    A target without GPUs has one, and so has a member that needs none.
    """
    return max(1, target.devices // cost.gpus) if cost.gpus else 1


def scaled_cost(entry: Entry, target: Target, cost: Cost) -> Cost | None:
    """A cost of another machine, its work scaled by the ratio of matmul rates.

    None where one is not known. An entry without weights runs on processors, of which matmul rates say nothing: it is taken to
    be as fast as there.
    """
    gpus = copy_gpus(entry, target)
    if entry.base is None:
        return cost.model_copy(update={"target": target.name, "machine": "", "gpus": gpus})
    rates = comparable_rates(target, cost.machine)
    if rates is None:
        return None
    # Layouts differ between machines, operations do not: a copy does as much as the rates of its GPUs say.
    slower = rates[1] * max(1, cost.gpus) / (rates[0] * max(1, gpus)) / form_change(entry, target, cost.machine).times
    pieces = tuple((r, t, q, s * slower) for r, t, q, s in cost.pieces)
    scaled = {name: getattr(cost, name) * slower for name in TERMS}
    return cost.model_copy(update=scaled | {"pieces": pieces, "target": target.name, "machine": "", "gpus": gpus})


def form_change(entry: Entry, target: Target, machine: str) -> FormSpeed:
    """How the entry's first form stands to AWQ on the target, beside another machine.

    W4A8 by Marlin is faster than AWQ on a T4 and slower than AWQ's own kernel on an H200: rates of 16-bit products alone would
    carry the one over to the other. Attention, which is of 16 bits in every form, is carried over with it.
    """
    spec = quantized_as(entry)
    if spec is None or spec.scheme == "awq":
        return FormSpeed(1.0, 0.0, "")
    there = next((t.compute_capability for t in list_targets() if t.gpus and is_of_kind(machine, t)), None)
    here, elsewhere = form_speed(entry, target), form_speed(entry, target, there)
    times = f"{spec.scheme} {here.times:.2f} times as fast as AWQ there, {elsewhere.times:.2f} times where it was measured"
    told = f"{times}; there {here.source}"
    return FormSpeed(here.times / elsewhere.times, float(np.hypot(here.spread, elsewhere.spread)), told)


def published_cost(entry: Entry, target: Target) -> Cost | None:
    """A cost from the model's operations at the rates of published runs.

    None where the shape or the target's rate is not known.
    """
    shape, scale, gpus = shape_of(entry), t4_ratio(target), copy_gpus(entry, target)
    if shape is None or scale is None:
        return None
    rates = np.exp(rates_on(target).log[:2]) * scale * max(1, gpus)
    rates[0] *= form_speed(entry, target).times
    flops = flops_of_shape(shape)
    seconds = [float((flops.split(one) / rates).sum()) for one in np.eye(3)]  # of a row, a token, and a token squared
    load = start_seconds(entry, shape, target)
    return Cost(target=target.name, load_seconds=load, gpus=gpus, **dict(zip(TERMS, seconds, strict=True)))


def quantized_as(entry: Entry) -> QuantizeSpec | None:
    """How the first form of an entry is quantized; None where it is not."""
    forms = forms_of(entry)
    return spec_of_form(entry.quantize, forms[0]) if forms and entry.quantize else None


def form_speed(entry: Entry, target: Target, capability: Capability | Literal["own"] | None = "own") -> FormSpeed:
    """How fast the entry's first form multiplies beside AWQ.

    On cards of the target's capability, or of another.

    What may stay in 16 bits is counted at AWQ's speed, and all of it: a forecast is of a checkpoint that is not made yet.
    """
    spec = quantized_as(entry)
    if spec is None or spec.scheme == "awq":
        return FormSpeed(1.0, 0.0, "")
    found = speed_of(spec.scheme, target.compute_capability if capability == "own" else capability)
    times = 1 / (spec.most_finer + (1 - spec.most_finer) / found.times)
    kept = f", {spec.most_finer:.0%} of the products left in 16 bits" if spec.most_finer else ""
    return FormSpeed(times, found.spread, f"linear layers {times:.2f} times as fast as AWQ's: {found.source}{kept}")


def rates_on(target: Target) -> RateFit:
    """Rates of published runs, for their own cards together with those that the target measured."""
    if not has_own_rates(target):
        return published_rates()
    return published_rates().with_measured(
        target.measured.matmul_flop_per_second.get("float16"), target.measured.attention_flop_per_second
    )


def has_own_rates(target: Target) -> bool:
    """Whether a forecast can rest on measured rates of a target with the published runs' cards."""
    found = target.measured
    return is_t4(target) and bool(found.matmul_flop_per_second.get("float16") or found.attention_flop_per_second)


def start_seconds(entry: Entry, shape: Shape, target: Target) -> float:
    """Seconds before the first row, by the measured rates of disk and bus where there are such.

    Copies on other cards read the same file again, from memory.
    """
    rates = target.measured
    if not is_t4(target) or rates.disk_bytes_per_second is None:
        return START_SECONDS
    size = linear_parameters(shape) + embedding_parameters(shape)
    spec = quantized_as(entry)
    weights = 2 * size if spec is None else quantized_bytes(shape, size, weight_bits(spec))
    over_bus = weights / rates.host_to_device_bytes_per_second if rates.host_to_device_bytes_per_second else 0.0
    return ENGINE_SECONDS + weights / rates.disk_bytes_per_second + over_bus


def t4_ratio(target: Target) -> float | None:
    """The target's matmul rate as a multiple of a T4's; None where it is not known."""
    rate = matmul_rate(target)
    if rate is None:
        return None
    return 1.0 if is_t4(target) else rate[0] / published_machine().declared.matmul_flop_per_second["float16"]


def is_t4(target: Target) -> bool:
    """Whether the target's cards are those of the published runs."""
    return (target.gpu, target.compute_capability) == (published_machine().gpu, published_machine().compute_capability)


def comparable_rates(target: Target, machine: str) -> tuple[float, float, bool] | None:
    """Matmul rates of a target and of a machine, and whether both were measured.

    Both measured or both declared where that can be had: cards reach a third to all of what their data sheets say. None where
    one is not known.
    """
    to, source = matmul_rate(target), rate_of_machine(machine)
    if to and source and to[1] != source[1]:
        to, source = declared_rate(target) or to, rate_of_machine(machine, measured=False) or source
    return None if to is None or source is None else (to[0], source[0], to[1] and source[1])


def declared_rate(target: Target) -> tuple[float, bool] | None:
    """The matmul rate by the data sheet, as `matmul_rate` gives it."""
    return matmul_rate(target.model_copy(update={"measured": Rates()}))


def rate_of_machine(machine: str, *, measured: bool = True) -> tuple[float, bool] | None:
    """Matmul rate of a machine, and whether it was measured.

    Of the targets of its kind, those measured on it come first. Without `measured` by data sheets alone.
    """
    rate_of = matmul_rate if measured else declared_rate
    kin = [t for t in list_targets() if is_of_kind(machine, t) and (t.gpus or t.measured_on == machine)]
    kin.sort(key=lambda t: (t.measured_on == machine, bool(t.measured.matmul_flop_per_second)))
    return next((rate for t in reversed(kin) if (rate := rate_of(t))), None)


def shape_of(entry: Entry) -> Shape | None:
    """The shape of the entry's fetched weights, else its declared one.

    None where neither is there.
    """
    from zoo.pipeline.weights import fetched_folder
    from zoo.settings import store_folder

    return entry_shape(entry, fetched_folder(entry, store_folder()))
