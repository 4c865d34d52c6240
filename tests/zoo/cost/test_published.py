"""Published run times: every row usable as stated, leave-one-out equal to refitting otherwise, operations as torch counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from benchmarks.cost_model import leave_one_out, typical_error
from zoo.cost.published import (
    DECLARED_RATES_SPREAD,
    NOISE,
    NOISE_RUNS,
    PRIOR_MEDIAN,
    PRIOR_SPREAD,
    ROUNDS,
    START_SECONDS,
    Published,
    PublishedRun,
    fit_rates,
    load_published,
    published_machine,
    published_rates,
    run_operations,
    run_tokens,
)
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.models.shapes import flops_of_shape, read_config, shape_of_config

PUBLISHED = load_published()


def test_every_run_says_its_conditions() -> None:
    assert len({run.name for run in PUBLISHED.runs}) == len(PUBLISHED.runs) >= 12
    for run in PUBLISHED.runs:
        assert run.source and (run.fit or run.why) and (run.fit <= (run.bound == "about"))
        assert run_operations(run, PUBLISHED).min() > 0
    assert len({run.group for run in PUBLISHED.runs if run.fit}) >= 4


def test_every_rate_says_its_conditions_and_is_one_that_a_card_can_have() -> None:
    assert len({rate.name for rate in PUBLISHED.rates}) == len(PUBLISHED.rates) >= 3
    for rate in PUBLISHED.rates:
        assert rate.source and rate.engine and (rate.fit != bool(rate.why))
        assert 0.02 < rate.share < 1


def test_a_rate_of_another_card_moves_the_matmul_rate_a_little_towards_it() -> None:
    """As sure as data sheets carry speed over: far less than the runs."""
    without = fit_rates(PUBLISHED.runs, PUBLISHED.model_copy(update={"rates": ()}))
    doubled = tuple(r.model_copy(update={"tokens_per_second": 2 * r.tokens_per_second}) for r in PUBLISHED.rates)
    more = fit_rates(PUBLISHED.runs, PUBLISHED.model_copy(update={"rates": doubled}))
    assert without.log[0] < published_rates().log[0] < more.log[0] < without.log[0] + np.log(2) / 4
    unused = tuple(r for r in PUBLISHED.rates if not r.fit)
    assert (fit_rates(PUBLISHED.runs, PUBLISHED.model_copy(update={"rates": unused})).log == without.log).all()


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-2-9b", "yi-34b"])
def test_shapes_are_those_of_the_entries(name: str) -> None:
    shape = load_entry(name).shape
    assert shape is not None and flops_of_shape(shape) == flops_of_shape(PUBLISHED.models[name])


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    own = Path(load_published.__wrapped__.__defaults__[0])  # type: ignore[index]
    path = tmp_path / "runs.toml"
    path.write_text(own.read_text().replace("max_tokens = 1800", "max_token = 1800", 1))
    with pytest.raises(ZooError, match=r"unknown key `runs\.0\.max_token`; did you mean `max_tokens`"):
        load_published(path)
    stray = PUBLISHED.runs[0].model_copy(update={"model": "gpt-5"})
    with pytest.raises(ZooError, match=r"no \[models.gpt-5\]"):
        run_operations(stray, PUBLISHED)


def other_fit(runs: list[PublishedRun], published: Published) -> np.ndarray:
    """Rates and factor by a simplex search over the log posterior, with operations counted from the shapes by hand."""
    work, stated, submitted = [], [], []
    for run in (run for run in runs if run.fit):
        s, n = published.models[run.model], run_tokens(run, published.lengths)
        layer = s.hidden_size * s.head_dim * (2 * s.num_attention_heads + 2 * s.num_key_value_heads)
        layer += 3 * s.hidden_size * s.intermediate_size
        linear = [2 * (s.num_hidden_layers * layer * t + s.hidden_size * s.vocab_size) for t in n]
        pairs = [2 * s.num_hidden_layers * s.num_attention_heads * s.head_dim * t**2 for t in n]
        scale = run.passes * run.rows / 2 / len(n)
        work.append((sum(linear) * scale, sum(pairs) * scale))
        stated.append(np.log(run.hours * 3600))
        submitted.append(run.kind == "submission")

    def squares(x: np.ndarray) -> float:
        total = 0.0
        for (a, b), seconds, is_submission in zip(work, stated, submitted, strict=True):
            predicted = np.log(START_SECONDS + a / np.exp(x[0]) + b / np.exp(x[1])) + is_submission * x[2]
            total += float((predicted - seconds) ** 2)
        return total

    x, noise = np.array(PRIOR_MEDIAN), NOISE
    for _ in range(ROUNDS):
        sigma = noise

        def objective(at: np.ndarray, sigma: float = sigma) -> float:
            seen = [rate for rate in published.rates if rate.fit]
            logs = [np.log(65e12 * 2 * r.parameters * r.tokens_per_second / r.gpus / r.sheet_flop_per_second) for r in seen]
            assert {rate.group for rate in seen} == {"weicj"}, "one observation"
            carried = ((at[0] - np.mean(logs)) / DECLARED_RATES_SPREAD) ** 2
            return squares(at) / sigma**2 + carried + float((((at - PRIOR_MEDIAN) / PRIOR_SPREAD) ** 2).sum())

        x = minimize(objective, x, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}).x
        noise = np.sqrt((NOISE_RUNS * NOISE**2 + squares(x)) / (NOISE_RUNS + len(work)))
        if abs(noise - sigma) < 1e-7:
            break
    return x


@pytest.mark.parametrize("index", [0, 2, 12])
def test_leave_one_out_is_refitting_without_the_run(index: int) -> None:
    left = leave_one_out(PUBLISHED)[index]
    x = other_fit([run for run in PUBLISHED.runs if run != left.run], PUBLISHED)
    a, b = run_operations(left.run, PUBLISHED)
    seconds = START_SECONDS + a / np.exp(x[0]) + b / np.exp(x[1])
    hours = seconds * (np.exp(x[2]) if left.run.kind == "submission" else 1) / 3600
    assert left.hours.likely == pytest.approx(hours, rel=2e-3)
    assert left.log_ratio == pytest.approx(np.log(hours / left.run.hours), abs=2e-3)


def with_hours(name: str, factor: float) -> Published:
    runs = [r.model_copy(update={"hours": r.hours * factor}) if r.name == name else r for r in PUBLISHED.runs]
    return PUBLISHED.model_copy(update={"runs": tuple(runs)})


@pytest.mark.parametrize("groups", [False, True])
def test_a_run_does_not_speak_for_itself(groups: bool) -> None:
    name = "llama-3-8b-padded"
    index = [run.name for run in PUBLISHED.runs].index(name)
    before, after = leave_one_out(PUBLISHED, groups=groups), leave_one_out(with_hours(name, 3.0), groups=groups)
    assert after[index].hours == before[index].hours
    kin = index + 1
    assert before[kin].run.group == before[index].run.group
    assert (after[kin].hours == before[kin].hours) == groups


def test_published_runs_lie_within_the_stated_error() -> None:
    """Each forecast without itself; the interval is of 80 %, and ten runs can tell that from 50 %, not from 90 %."""
    left = [out for out in leave_one_out(PUBLISHED) if out.run.fit]
    inside = sum(out.hours.low <= out.run.hours <= out.hours.high for out in left)
    assert inside / len(left) >= 0.7
    assert typical_error(left) < 0.35
    assert typical_error(leave_one_out(PUBLISHED, groups=True)) < 0.4
    for out in leave_one_out(PUBLISHED):
        assert out.run.bound != "below" or out.hours.low < out.run.hours


def test_rates_are_those_of_a_t4() -> None:
    fit = published_rates()
    matmul, attention, factor = (fit.rate(i) for i in range(3))
    assert attention.likely < matmul.likely < published_machine().declared.matmul_flop_per_second["float16"], (
        "no faster than the data sheet; attention without tensor cores"
    )
    assert 1.35 <= factor.likely <= 1.8, "of the published pairs of interactive and submitted runs"
    for interval in (matmul, attention, factor):
        assert interval.low < interval.likely < interval.high
    work = np.array([1e17, 1e15])
    assert fit.seconds(work, submission=True).likely == pytest.approx(factor.likely * fit.seconds(work).likely)


@settings(deadline=None)
@given(st.floats(1e12, 1e18), st.floats(1e10, 1e17), st.floats(1, 100), st.floats(0.1, 20), st.floats(0, 1))
def test_seconds_grow_with_work_shrink_with_rates_and_widen_with_spread(
    a: float, b: float, more: float, scale: float, spread: float
) -> None:
    fit = published_rates()
    base, work = fit.seconds(np.array([a, b])), np.array([a, b])
    assert fit.seconds(work * more).likely >= base.likely > START_SECONDS
    assert (fit.seconds(work, scale=scale).likely <= base.likely) == (scale >= 1)
    wide = fit.seconds(work, spread=spread)
    assert wide.likely == base.likely and wide.low <= base.low and wide.high >= base.high
    doubled = fit.seconds(2 * work).likely - START_SECONDS
    assert doubled == pytest.approx(2 * (base.likely - START_SECONDS), rel=1e-6, abs=1e-6)


def test_a_worse_spread_of_runs_is_a_wider_forecast() -> None:
    runs = PUBLISHED.runs
    wild = with_hours(runs[0].name, 6.0).runs
    assert fit_rates(wild, PUBLISHED).noise > fit_rates(runs, PUBLISHED).noise


def test_operations_are_those_that_torch_counts(tiny_llama: Path) -> None:
    """Per token and head exactly; attention twice ours, since torch counts masked pairs too."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager")
    flops = flops_of_shape(shape_of_config(read_config(tiny_llama)))
    for n in (16, 64):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=torch.zeros(1, n, dtype=torch.long), use_cache=False)
        assert counter.get_total_flops() == n * flops.per_row + n * flops.per_token + 2 * n * n * flops.per_token_sq
