"""`zoo cost` as a user meets it: the best basis that there is, and what it says about itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.helpers.manifests import finished, input_of, manifest, score_card
from tests.helpers.requests import PROMPT, quantize_request
from zoo.checks.layouts import layout_memory
from zoo.cli.main import app
from zoo.contracts import Cost, Entry, Held, Measurements, ScoreCard, ScoreRequest, ScoreSpec, Variant, changed
from zoo.cost import measure
from zoo.cost.basis import comparable_rates, rate_of_machine, rates_on
from zoo.cost.fit import row_seconds
from zoo.cost.forecast import Forecast, Measured, forecast, forecasts_of, measurements, nearest
from zoo.cost.lengths import File, estimated, file_of
from zoo.cost.measure import FIRST_ROWS, SECONDS, STRATA, by_length, one_order, rows_that_fit, samples_folder, stratified
from zoo.cost.published import (
    ATTENTION_SHARE,
    ATTENTION_SHARE_SPREAD,
    ENGINE_SPREAD,
    MATMUL_SHARE,
    MATMUL_SHARE_SPREAD,
    load_published,
    published_rates,
)
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.pipeline.runners.chosen import current_runner
from zoo.scores.tables import CARD, write_card
from zoo.targets import Rates, Target, is_of_kind, load_target, machine_fingerprint, own_folder

LLAMA = load_entry("llama-3-8b")
LONG, SHORT = Variant(max_tokens=2048), Variant(max_tokens=1024)


def file(rows: int = 25_000, tokens: float = 600.0, variant: Variant = LONG) -> File:
    return File(rows, {variant: np.array([tokens / 2, tokens, 2 * tokens])}, ())


def published(entry: Entry, target: str, of: File) -> Forecast:
    (found,) = forecast(entry, load_target(target), of, [])
    assert found.basis == "published"
    return found


def measured(machine: str, *, entry: str = "llama-3-8b", variant: Variant = LONG, gpus: int = 1, **card: Any) -> Measured:
    pieces = tuple((64, 64 * n, 64 * n * n, 64 * n * 2e-5) for n in (100, 300, 600, 1200, 2000))
    cost = Cost(
        target="h200", load_seconds=40, seconds_per_token=2e-5, gpus=gpus, measured_rows=320, machine=machine, pieces=pieces
    )
    made = score_card(f"{entry}@x", variant, target="h200", rows=320, cost=cost, **card)
    return Measured(made, manifest(measurements=Measurements(peak_bytes=7)))


H200, T4S = "1 x NVIDIA H200 143771 MiB", "2 x Tesla T4 15360 MiB"


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-2-9b", "yi-34b"])
def test_forecasts_from_shapes_grow_with_rows_and_lengths(name: str) -> None:
    entry = load_entry(name)
    base = published(entry, "t4x2", file())
    for other in (file(rows=30_000), file(tokens=700)):
        grown = published(entry, "t4x2", other)
        assert grown.tokens > base.tokens
        assert grown.seconds.likely > base.seconds.likely and grown.seconds.high > base.seconds.high
    assert base.submission_seconds is not None
    assert 1.35 <= base.submission_seconds.likely / base.seconds.likely <= 1.8
    assert "never ran on t4x2" in base.extrapolates


def test_two_cards_halve_the_work_of_one_and_larger_models_take_longer() -> None:
    one, two = published(LLAMA, "t4", file()), published(LLAMA, "t4x2", file())
    assert (one.seconds.likely - 180) == pytest.approx(2 * (two.seconds.likely - 180))
    assert published(load_entry("yi-34b"), "t4x2", file()).seconds.likely > 3 * two.seconds.likely
    faster = published(LLAMA, "h200", file())
    assert faster.seconds.likely < two.seconds.likely and faster.submission_seconds is None
    assert faster.seconds.high / faster.seconds.likely > two.seconds.high / two.seconds.likely


def test_a_model_far_from_the_published_ones_says_so() -> None:
    assert not any("far" in note for note in published(LLAMA, "t4x2", file()).extrapolates)
    small = published(load_entry("smollm2-135m"), "t4x2", file())
    assert any("far smaller" in note for note in small.extrapolates)
    assert small.seconds.high / small.seconds.likely > 1.5


def test_a_measurement_on_the_target_comes_first_and_bounds_its_bytes() -> None:
    found = forecasts_of(LLAMA, LONG, load_target("h200"), file(1000), [measured(H200)])
    assert [f.basis for f in found] == ["measured", "published"]
    tokens = found[0].tokens
    assert found[0].seconds.likely == pytest.approx(40 + tokens * 2e-5)
    assert found[0].peak_bytes is not None and found[0].peak_bytes.likely == 7
    assert (
        forecasts_of(LLAMA, SHORT, load_target("h200"), file(variant=SHORT), [measured(H200)])[0]
        .assumed[-1]
        .startswith("as fast")
    )


def test_a_measurement_elsewhere_is_scaled_by_rates_and_wider() -> None:
    here = forecasts_of(LLAMA, LONG, load_target("h200"), file(), [measured(H200)])[0]
    found = {f.basis: f for f in forecasts_of(LLAMA, LONG, load_target("t4x2"), file(), [measured(H200)])}
    assert list(found) == ["published", "scaled"], "rates fitted to T4s are nearer to a T4"
    scaled = found["scaled"]
    work = (here.seconds.likely - 40) * (989 / 65) / 2
    assert scaled.seconds.likely == pytest.approx(40 + work, rel=1e-6)
    assert scaled.seconds.high / scaled.seconds.low > 2 * here.seconds.high / here.seconds.low
    assert any(H200 in note for note in scaled.extrapolates)
    assert forecasts_of(LLAMA, LONG, load_target("l4x2"), file(), [measured(H200)])[0].basis == "scaled"


def test_measured_rates_narrow_a_scaled_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo.cost.basis

    rates = Rates(matmul_flop_per_second={"float16": 700e12})
    both = [
        load_target(name).model_copy(update={"measured": rates, "measured_on": m})
        for name, m in (("h200", H200), ("t4x2", T4S))
    ]
    before = {f.basis: f for f in forecasts_of(LLAMA, LONG, load_target("t4x2"), file(), [measured(H200)])}["scaled"]
    monkeypatch.setattr(zoo.cost.basis, "list_targets", lambda: both)
    after = {f.basis: f for f in forecasts_of(LLAMA, LONG, both[1], file(), [measured(H200)])}["scaled"]
    assert rate_of_machine(H200) == (700e12, True)
    assert after.seconds.high / after.seconds.likely < before.seconds.high / before.seconds.likely


def test_the_nearest_measurement_is_of_this_machine_then_of_the_cap() -> None:
    ours, theirs = measured(machine_fingerprint(), variant=SHORT), measured("other", variant=LONG)
    assert nearest([theirs, ours], LONG) is ours
    assert nearest([measured("a", variant=SHORT), theirs], LONG) is theirs


def test_measurements_that_disagree_widen_the_interval() -> None:
    slow = measured(H200)
    cost = slow.card.cost.model_copy(update={"seconds_per_token": 4e-5})
    slow = Measured(slow.card.model_copy(update={"cost": cost}), slow.manifest.model_copy(update={"fingerprint": "g"}))
    one, two = (
        forecasts_of(LLAMA, LONG, load_target("h200"), file(), m)[0] for m in ([measured(H200)], [slow, measured(H200)])
    )
    assert two.seconds.likely == one.seconds.likely
    assert two.seconds.high / two.seconds.low > 1.5 * one.seconds.high / one.seconds.low
    assert any("2 measurements" in note for note in two.assumed)


def test_variants_of_one_run_are_one_measurement() -> None:
    """They agree, as they ran in one engine within one hour; three runs would not."""
    run = [measured(H200, variant=variant) for variant in (LONG, SHORT, Variant(order="ba", max_tokens=2048))]
    cost = run[0].card.cost.model_copy(update={"seconds_per_token": 4e-5})
    made = run[0].manifest.model_copy(update={"fingerprint": "g"})
    other = [Measured(one.card.model_copy(update={"cost": cost}), made) for one in run]
    alone, one, two = (forecasts_of(LLAMA, LONG, load_target("h200"), file(), m)[0] for m in (run[:1], run, [*other, *run]))
    assert alone == one and any("2 measurements" in note for note in two.assumed)
    assert two.seconds == forecasts_of(LLAMA, LONG, load_target("h200"), file(), [other[0], run[0]])[0].seconds


def test_emulated_runs_say_nothing_of_speed(tmp_path: Path) -> None:
    from zoo.cost.forecast import measurements
    from zoo.store import MANIFEST

    for name, extra in (("score-1", {}), ("score-2", {"emulates": "t4x2"})):
        folder = tmp_path / name / "ab-2048"
        folder.mkdir(parents=True)
        made = measured(H200, **extra)
        (folder / "scores.json").write_text(made.card.model_dump_json())
        (tmp_path / name / MANIFEST).write_text(made.manifest.model_dump_json())
    assert len(measurements(LLAMA, [tmp_path])) == 1


def test_lengths_are_estimated_with_template_and_cap(sample_csv: Path) -> None:
    found = file_of(LLAMA, sample_csv, 1000, None)
    assert found.rows == 1000 and any("tokenizer is not in the store" in note for note in found.assumed)
    lengths = load_published().lengths
    assert LLAMA.prompt is not None
    capped = estimated(lengths, np.array([0.0, 1e6]), LLAMA.prompt, SHORT)
    assert capped[0] == pytest.approx(len(LLAMA.prompt.template) / lengths.characters_per_token) and capped[1] == 1024
    assert file_of(LLAMA, None, None, None).rows == 25_000
    assert not file_of(load_entry("lexical"), sample_csv, None, None).tokens[Variant()].any()


def test_a_sample_has_every_length(sample_csv: Path) -> None:
    from zoo.data.battles import count_characters, read_battles

    frame = read_battles(sample_csv).frame
    characters = dict(zip(frame["id"], count_characters(frame), strict=True))
    chosen = [characters[row_id] for row_id in stratified(by_length(sample_csv), 64)]
    assert len(chosen) == 64 and chosen == sorted(chosen, reverse=True)
    assert (chosen[0], chosen[-1]) == (max(characters.values()), min(characters.values()))
    quarters = np.quantile(list(characters.values()), [0.25, 0.5, 0.75])
    assert np.bincount(np.searchsorted(quarters, chosen), minlength=4).min() >= 64 / STRATA
    assert len(stratified(by_length(sample_csv), 10_000)) == len(frame)
    assert one_order(LLAMA) == (LONG, SHORT)


@given(st.floats(0.0, 1e4), st.integers(1, 10**6), st.floats(0.8, 1.25))
def test_a_measurement_grows_to_what_fits_and_no_further(seconds: float, most: int, noise: float) -> None:
    rows = min(FIRST_ROWS, most)
    grown = rows_that_fit(rows, seconds, most)
    assert rows <= grown <= most
    assert grown == rows or grown * seconds <= rows * SECONDS * (1 + 1e-9)
    assert grown == most or 2 * grown * max(seconds, 1e-3) > rows * SECONDS * (1 - 1e-9), "half of what fits, or more"
    assert rows_that_fit(grown, grown * seconds * noise / rows, most) >= grown
    assert grown in (most, rows) or np.log2(grown / FIRST_ROWS).is_integer()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["cost", *arguments])


@pytest.mark.chain
def test_measuring_here_then_asking_again(sample_csv: Path) -> None:
    """The ordinary stages, really run: train the lexical entry, measure it, and read the forecast back without measuring."""
    trained = CliRunner().invoke(app, ["train", "lexical", "--data", str(sample_csv), "--set", "lexical.folds=2"])
    assert trained.exit_code == 0, trained.output
    arguments = ("lexical", "--target", "cpu", "--lengths", str(sample_csv), "--json")
    if not is_of_kind(machine_fingerprint(), load_target("cpu")):
        assert isinstance(run(*arguments, "--measure").exception, ZooError)
        return
    assert isinstance(run(*arguments).exception, ZooError), "nothing was measured yet"
    first = run(*arguments, "--measure")
    again = run(*arguments, "--rows", "24000")
    one, many = (Forecast.model_validate(json.loads(done.stdout)[0]) for done in (first, again))
    assert one.basis == many.basis == "measured" and (one.rows, many.rows) == (240, 24_000)
    (card,) = samples_folder().glob("lexical-score-*/ab/scores.json")
    cost = ScoreCard.model_validate_json(card.read_text()).cost
    assert cost.measured_rows == 240 and len(cost.pieces) >= 1, "all there are: seconds of work, and no smaller sample is kept"
    assert many.seconds.likely - cost.load_seconds == pytest.approx(100 * (one.seconds.likely - cost.load_seconds))
    shown = run(*arguments[:-1])
    assert "measured" in shown.stdout and "likely" in shown.stdout
    board = CliRunner().invoke(app, ["leaderboard", "--format", "json"])
    assert json.loads(board.stdout) == [], "a sample is no member"


def test_what_cannot_be_forecast_is_an_error_that_says_what_to_do(sample_csv: Path) -> None:
    assert "--measure" in str(run("lexical", "--target", "t4x2").exception)
    assert "--lengths FILE" in str(run("lexical", "--measure").exception)
    other = "t4x2" if is_of_kind(machine_fingerprint(), load_target("cpu")) else "cpu"
    done = run("smollm2-135m", "--target", other, "--lengths", str(sample_csv), "--measure")
    assert "is not" in str(done.exception) and machine_fingerprint() in str(done.exception)


def test_the_table_tells_units_and_submission() -> None:
    done = run("llama-3-8b", "--target", "t4x2", "--rows", "25000")
    assert done.exit_code == 0, done.output
    assert "hours low" in done.stdout and "submitted" in done.stdout and "assumed:" in done.stdout
    found = [Forecast.model_validate(f) for f in json.loads(run("llama-3-8b", "--json").stdout)]
    assert {f.variant for f in found} == set((LLAMA.score and LLAMA.score.variants) or ())
    assert all(f.rows == 25_000 for f in found)


@pytest.mark.parametrize("layout", ["replicas", "pipeline"])
def test_hours_of_what_would_not_start_say_so_as_the_check_does(layout: str) -> None:
    asked = ("gemma-2-9b", "--target", "t4x2", "--set", "quantize.scheme=int8", "--set", f"serve.t4x2.layout={layout}")
    done, checked = run(*asked), CliRunner().invoke(app, ["check", *asked])
    assert done.exit_code == 0, done.output
    assert ("too large to start" in done.stdout) == (checked.exit_code == 1) == (layout == "replicas")


def test_a_broken_target_file_stops_no_other_targets_forecast() -> None:
    own_folder().mkdir(parents=True, exist_ok=True)
    (own_folder() / "broken.toml").write_text('name = "broken"\ngpus = "many"')
    assert forecasts_of(LLAMA, LONG, load_target("l4x2"), file(), [measured(H200)])[0].basis == "scaled"
    with pytest.raises(ZooError, match=r"broken\.toml: "):
        load_target("broken")


def test_bytes_are_those_of_the_check_where_nothing_was_measured() -> None:
    entry, target = load_entry("yi-34b"), load_target("t4x2")
    assert entry.base and entry.quantize and entry.score and entry.shape
    card = layout_memory(entry.base, entry.quantize, entry.score, entry.shape, target)[entry.serve["t4x2"].layout]
    peak = published(entry, "t4x2", file()).peak_bytes
    assert peak is not None and peak.low < peak.likely == card.allocated < peak.high < card.total * 1.05
    assert any("arithmetic" in note for note in published(entry, "t4x2", file()).assumed)


# --- rates that a T4 measured of itself --------------------------------------------------------------------------------------


def of_t4(matmul: float | None = None, attention: float | None = None, **rates: float) -> Target:
    own = Rates(matmul_flop_per_second={"float16": matmul} if matmul else {}, attention_flop_per_second=attention, **rates)
    return load_target("t4x2").model_copy(update={"measured": own, "measured_on": T4S})


def test_a_forecast_rests_on_rates_measured_there_and_says_so() -> None:
    (before,) = forecasts_of(LLAMA, LONG, load_target("t4x2"), file(), [])
    (after,) = forecasts_of(LLAMA, LONG, of_t4(40e12, 6e12), file(), [])
    assert (before.basis, after.basis) == ("published", "rates")
    assert after.seconds.likely < before.seconds.likely and after.cost.seconds_per_token < before.cost.seconds_per_token
    told = [note for note in after.assumed if T4S in note]
    assert len(told) == 1 and "matmul 40 TFLOP/s and attention 6 TFLOP/s" in told[0]
    total = after.cost.load_seconds + float(row_seconds(after.cost, file().tokens[LONG]).sum()) / 2 * file().rows / len(
        file().tokens[LONG]
    )
    assert total == pytest.approx(after.seconds.likely, rel=1e-6), "the cost in a plan is the forecast's"


def test_weights_are_loaded_at_the_rates_measured_there() -> None:
    slow, fast = (
        forecasts_of(LLAMA, LONG, of_t4(24e12, disk_bytes_per_second=rate, host_to_device_bytes_per_second=6e9), file(), [])[0]
        for rate in (5e7, 1e9)
    )
    weights = (1 / 5e7 - 1 / 1e9) ** -1 * (slow.cost.load_seconds - fast.cost.load_seconds)
    assert 5e9 < weights < 6.5e9, "4-bit weights of the 8B, embedding and head in 16 bits"
    assert slow.seconds.likely - fast.seconds.likely == pytest.approx(slow.cost.load_seconds - fast.cost.load_seconds)


def test_rates_of_other_cards_leave_the_published_ones_alone() -> None:
    l4 = load_target("l4x2").model_copy(update={"measured": Rates(attention_flop_per_second=5e13)})
    assert rates_on(l4) is published_rates() and rates_on(of_t4()) is published_rates()


@settings(deadline=None)
@given(st.floats(1e12, 8e13), st.floats(1e11, 3e13))
def test_measured_rates_and_published_ones_count_by_how_sure_each_is(matmul: float, attention: float) -> None:
    """Against the product of two Gaussians by their precisions."""
    fit = published_rates()
    both = fit.with_measured(matmul, attention)
    published = np.linalg.inv(fit.covariance + np.diag([ENGINE_SPREAD**2, ENGINE_SPREAD**2, 0]))
    spreads = np.array([MATMUL_SHARE_SPREAD, ATTENTION_SHARE_SPREAD])
    precision = published + np.diag([*spreads**-2, 0])
    seen = np.log([matmul * MATMUL_SHARE, attention * ATTENTION_SHARE])
    np.testing.assert_allclose(both.log, np.linalg.solve(precision, published @ fit.log + [*(seen * spreads**-2), 0]))
    np.testing.assert_allclose(both.covariance, np.linalg.inv(precision))
    assert fit.with_measured(None, None) is fit


@settings(deadline=None)
@given(st.floats(1e13, 6e13), st.floats(1.01, 3))
def test_a_faster_card_is_forecast_faster(matmul: float, more: float) -> None:
    slow, fast = (forecasts_of(LLAMA, LONG, of_t4(rate), file(), [])[0].seconds for rate in (matmul, matmul * more))
    assert fast.likely < slow.likely and fast.high < slow.high and fast.low < slow.low


def test_machines_are_compared_by_rates_of_one_kind() -> None:
    """A T4's own rate beside an H200's data sheet would make the T4 slower than it is."""
    to, source, measured_both = comparable_rates(of_t4(24e12), H200) or (0, 0, True)
    assert (to, measured_both) == (65e12, False) and source > 9e14


# --- forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "target", "told"), [("w4a8", "t4x2", "PR 29901"), ("int8", "t4x2", "PR 6996"), ("int8", "h200", "H200")]
)
def test_a_form_is_priced_by_its_kernels_and_says_which(form: str, target: str, told: str) -> None:
    """By a wider interval, and by more where less stays in 16 bits; AWQ's forecast is as it was."""
    both = override(LLAMA, [f"score.variants=[{{max_tokens=2048}},{{max_tokens=2048,form='{form}'}}]"])
    other = Variant(max_tokens=2048, form=form)  # type: ignore[arg-type]
    awq, eight = (forecasts_of(both, v, load_target(target), file(variant=v), [])[0] for v in (LONG, other))
    assert awq == forecasts_of(LLAMA, LONG, load_target(target), file(), [])[0]
    assert eight.seconds.likely < awq.seconds.likely
    assert eight.seconds.high / eight.seconds.likely > awq.seconds.high / awq.seconds.likely
    assert any(told in note and ("25% of the products" in note) == (form != "w4a8") for note in eight.assumed)
    none_left = override(both, ["quantize.finer_share=0"])
    less = forecasts_of(none_left, other, load_target(target), file(variant=other), [])[0].seconds.likely
    assert (less < eight.seconds.likely) == (form != "w4a8")


def test_a_measurement_of_one_form_prices_no_other() -> None:
    both = override(LLAMA, ["score.variants=[{max_tokens=2048},{max_tokens=2048,form='int8'}]"])
    other = Variant(max_tokens=2048, form="int8")
    known = [measured(H200), measured(H200, variant=other)]
    for variant in (LONG, other):
        (alone,) = [m for m in known if m.card.variant == variant]
        own = forecasts_of(both, variant, load_target("h200"), file(variant=variant), known)[0]
        assert own.basis == "measured" and own.cost.seconds_per_token == alone.card.cost.seconds_per_token
    found = forecasts_of(both, other, load_target("h200"), file(variant=other), known[:1])
    assert found[0].basis == "published"


def test_what_a_checkpoint_of_another_form_took_says_nothing_of_a_variant() -> None:
    """Also where `quantize.scheme` was another one when it was measured, so that the variant's name is the same."""
    known = [dataclasses.replace(measured(H200), scheme="awq")]
    for scheme, basis in (("awq", "measured"), ("int8", "published")):
        entry = override(LLAMA, [f"quantize.scheme={scheme}"])
        assert forecasts_of(entry, LONG, load_target("h200"), file(), known)[0].basis == basis


def test_the_form_of_a_measured_checkpoint_is_its_own_requests(tmp_path: Path, sample_csv: Path) -> None:
    made = finished(tmp_path, quantize_request(tmp_path, sample_csv, scheme="int8"))
    request = ScoreRequest(
        entry="tiny",
        model=input_of(made),
        battles=made.manifest.request.inputs["battles"],
        held=Held(),
        prompt=PROMPT,
        spec=ScoreSpec(),
        target="h200",
    )
    artifact = finished(tmp_path, request)
    card = score_card("tiny@ab", Variant(max_tokens=512), cost=measured(H200).card.cost)
    (artifact.path / "ab").mkdir()
    write_card(card, artifact.path / "ab" / CARD)
    (found,) = measurements(changed(LLAMA, name=card.entry), [tmp_path])
    assert found.scheme == "int8"


def test_what_measures_this_machine_has_the_local_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setenv("ZOO_RUNNER", "ray")
    monkeypatch.setattr(measure, "by_length", lambda battles, say: [])
    monkeypatch.setattr(measure, "_measure_form", lambda *_: seen.append(current_runner()))
    measure.measure(load_entry("smollm2-135m"), load_target("cpu"), tmp_path / "battles.csv", tmp_path, say=lambda _: None)
    assert set(seen) == {"local"} and current_runner() == "ray"
