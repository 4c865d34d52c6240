"""Speed of forms beside AWQ: what was published lies in the interval, and a form is carried over to another card as a form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.manifests import manifest, score_card
from zoo.contracts import Cost, Measurements, Scheme, Variant
from zoo.cost.basis import form_change
from zoo.cost.forecast import Measured, forecasts_of
from zoo.cost.forms import FLOAT16, INT8_FEW_ROWS, SHEET, W4A8, W4A16, speed_of
from zoo.cost.interval import Z
from zoo.cost.lengths import File
from zoo.entries.load import load_entry, override
from zoo.targets import load_target
from zoo.targets.capabilities import ADA, HOPPER, TURING

LLAMA, LONG = load_entry("llama-3-8b"), Variant(max_tokens=2048)
H200 = "1 x NVIDIA H200 143771 MiB"


def file(variant: Variant = LONG) -> File:
    return File(25_000, {variant: np.array([300.0, 600.0, 1200.0])}, ())


def measured(variant: Variant = LONG) -> Measured:
    """A member's cost on an H200, in pieces of several lengths."""
    pieces = tuple((64, 64 * n, 64 * n * n, 64 * n * 2e-5) for n in (100, 300, 600, 1200, 2000))
    cost = Cost(target="h200", load_seconds=40, seconds_per_token=2e-5, measured_rows=320, machine=H200, pieces=pieces)
    card = score_card("llama-3-8b@x", variant, target="h200", rows=320, cost=cost)
    return Measured(card, manifest(measurements=Measurements(peak_bytes=7)))


def interval(scheme: Scheme) -> tuple[float, float]:
    found = speed_of(scheme, TURING)
    return found.times * math.exp(-Z * found.spread), found.times * math.exp(Z * found.spread)


def test_a_t4_s_published_kernels_lie_in_the_interval() -> None:
    low, high = interval("w4a8")
    assert low < min(W4A16) / max(W4A8) < 1.47 < max(W4A16) / min(W4A8) < high, "1.47: as the table's authors put it"
    low, high = interval("int8")
    for times in INT8_FEW_ROWS:
        for over in (min(FLOAT16) / max(W4A16), max(FLOAT16) / min(W4A16)):
            assert low <= times / over * (1 + 1e-9) and times / over <= high * (1 + 1e-9)
    assert speed_of("int8", TURING).times < SHEET, "the data sheet bounds it"
    assert high / low > 1.2 * interval("w4a8")[1] / interval("w4a8")[0], "two tables joined are a wider guess"


def test_a_card_that_was_not_measured_says_so() -> None:
    assert "not measured" in speed_of("int8", ADA).source and speed_of("int8", ADA).spread > speed_of("int8", TURING).spread


def of_form(scheme: Scheme) -> tuple[Measured, File]:
    variant = Variant(max_tokens=2048, form=scheme)
    return measured(variant), file(variant)


@pytest.mark.parametrize("scheme", ["w4a8", "int8"])
def test_a_form_is_carried_over_by_how_it_stands_to_awq_on_either_card(scheme: Scheme) -> None:
    """Both measured at one speed on an H200: on a T4 they stand as the form does there, beside how it does on Hopper."""
    entry = override(LLAMA, [f"quantize.scheme={scheme}"])
    target = load_target("t4x2")
    known, of = of_form(scheme)
    (variant,) = of.tokens
    form = {f.basis: f for f in forecasts_of(entry, variant, target, of, [known])}["scaled"]
    awq = {f.basis: f for f in forecasts_of(LLAMA, LONG, target, file(), [measured()])}["scaled"]
    wanted = speed_of(scheme, TURING).times / speed_of(scheme, HOPPER).times
    if scheme == "int8":
        assert entry.quantize is not None
        kept = entry.quantize.most_finer
        wanted = (kept + (1 - kept) / speed_of(scheme, HOPPER).times) / (kept + (1 - kept) / speed_of(scheme, TURING).times)
    load = 40.0
    assert (awq.seconds.likely - load) / (form.seconds.likely - load) == pytest.approx(wanted)
    assert form.seconds.high / form.seconds.likely > awq.seconds.high / awq.seconds.likely
    assert any(scheme in note for note in form.assumed)


def test_awq_and_a_machine_of_the_same_kind_change_nothing() -> None:
    assert form_change(LLAMA, load_target("t4x2"), H200).times == 1
    entry = override(load_entry("llama-3-8b"), ["quantize.scheme=w4a8"])
    assert form_change(entry, load_target("h200"), H200).times == 1
    assert np.isfinite(form_change(entry, load_target("cpu"), H200).times)
