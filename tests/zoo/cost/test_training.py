"""`zoo cost --train`: work as the stage plans it, cards, folds, notebooks, and what a forecast rests on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.helpers.manifests import finished
from tests.helpers.requests import train_request
from zoo.cli.main import app
from zoo.contracts import Measurements, TrainRequest, changed
from zoo.cost.training import TrainingForecast, balance_of, forecast_training, recomputed_share, training_ratio, work_of
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.models.batches import plan_steps
from zoo.models.shapes import linear_parameters
from zoo.scores.metric_names import TRAIN_SPEED
from zoo.targets import load_target

LLAMA = load_entry("llama-3-8b")
LENGTHS = np.array([300.0, 600.0, 900.0])


def told(tmp_path: Path, *, entry: Any = LLAMA, target: str = "t4x2", rows: int = 2000, folds: int = 1) -> TrainingForecast:
    return forecast_training(entry, load_target(target), rows=rows, lengths=None, folds=folds, n_folds=5, store=tmp_path)


def test_operations_are_four_a_frozen_weight_and_token_and_two_more_where_layers_are_computed_again() -> None:
    assert LLAMA.train and LLAMA.shape
    spec = changed(LLAMA.train, rank=1, batch_rows=16, micro_batch_tokens=1000)
    plain, again = (work_of(spec, LLAMA.shape, np.full(3, 500.0), 64, 8, gpus=1, again=share) for share in (0.0, 1.0))
    tokens = 64 * 500
    assert plain.tokens == tokens and plain.steps == 4
    assert plain.passes[0] / tokens == pytest.approx(4 * linear_parameters(LLAMA.shape), rel=1e-2)
    assert again.passes[0] / plain.passes[0] == pytest.approx(1.5, rel=1e-2)
    long = work_of(spec, LLAMA.shape, np.full(3, 500.0), 10**9, 8, gpus=2, again=0.0)  # as soon as a short file's
    assert long.tokens == 10**9 * 500 and long.passes[0] / long.tokens == pytest.approx(plain.passes[0] / tokens)
    assert plain.evaluations[0] == pytest.approx(5 * 8 * (500 * 2 * linear_parameters(LLAMA.shape) + 2 * 4096 * 128256))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(10, 900), min_size=16, max_size=120), st.integers(1, 4), st.integers(500, 4000))
def test_cards_end_no_sooner_than_their_number_lets_them(lengths: list[int], gpus: int, tokens: int) -> None:
    """But for padding, which cutting a micro-batch in two may save."""
    assert LLAMA.train is not None
    steps = plan_steps(lengths, changed(LLAMA.train, micro_batch_tokens=tokens, batch_rows=16), 0)
    padding = sum(len(b) * max(lengths[i] for i in b) for s in steps for b in s) / sum(lengths)
    assert 0 < balance_of(steps, lengths, gpus) <= padding + 1e-9 if gpus > 1 else balance_of(steps, lengths, 1) == 1


def test_more_rows_and_folds_take_longer_and_two_cards_less(tmp_path: Path) -> None:
    one, more = told(tmp_path), told(tmp_path, rows=4000)
    assert more.seconds.likely > 1.8 * one.seconds.likely and more.learned == 2 * one.learned == 3200
    ways = {way.gpus: way.seconds.likely for way in one.ways}
    assert ways[1] / 2 <= ways[2] < ways[1] and one.ways[0].gpus == 2, "one fold ends sooner over both cards"
    two, five = told(tmp_path, folds=2), told(tmp_path, folds=5)
    assert two.ways[0].at_a_time == 2, "two folds: one a card, without idle ends of steps"
    assert five.ways[0].gpus == 2, "a fifth fold would leave a card idle"
    assert told(tmp_path, target="t4").ways[0].seconds.likely == pytest.approx(ways[1])


def test_what_fits_a_notebook_is_what_ends_within_it(tmp_path: Path) -> None:
    base = told(tmp_path, rows=20_000)
    nine, twelve = base.fits
    assert (nine.hours, twelve.hours) == (9, 12) and nine.safe_rows < nine.rows < twelve.rows
    again = told(tmp_path, rows=nine.rows)
    assert again.ways[0].seconds.likely / 3600 == pytest.approx(9, rel=0.1)


def test_it_says_what_it_rests_on(tmp_path: Path) -> None:
    base = told(tmp_path)
    assert base.basis == "published" and base.extrapolates == ("never trained on t4x2",)
    assert base.seconds.high / base.seconds.low > 2, "never measured there"
    assert any("train_speed.md" in note and "cost_model.md" in note for note in base.assumed)
    assert any("35%" in note and "a guess" in note for note in base.assumed) and any("2 cards" in note for note in base.assumed)
    short = told(tmp_path, entry=override(LLAMA, ["train.max_hours=3"]))
    assert any("train.max_hours = 3 ends it" in note for note in short.assumed)
    assert base.memory.startswith("ok: ") and "of 14.6 GiB" in base.memory
    assert training_ratio(dropout=True)[0] < training_ratio(dropout=False)[0] < 1
    assert LLAMA.base and LLAMA.train and LLAMA.shape
    shares = [recomputed_share(LLAMA.base, LLAMA.train, LLAMA.shape, load_target(t)) for t in ("t4x2", "l4x2", "h200")]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1] == 0


def test_a_training_that_ran_on_such_a_machine_comes_first(tmp_path: Path) -> None:
    def ran(speed: float, seed: int, *, emulates: str | None = None, machine: str = "2 x Tesla T4 15360 MiB") -> TrainRequest:
        request = train_request(tmp_path, tmp_path / "b.csv")
        request = changed(request, entry="llama-3-8b", emulates=emulates, spec=changed(request.spec, seed=seed))
        times = Measurements(load_seconds=100, run_seconds=10)
        finished(tmp_path, request, metrics={TRAIN_SPEED: speed}, hardware={"machine": machine}, measurements=times)
        return request

    ran(900, 0, emulates="t4")
    ran(900, 1, machine="1 x NVIDIA H200 143771 MiB")
    assert told(tmp_path).basis == "published"
    ran(200, 2)
    found = told(tmp_path)
    assert found.basis == "measured" and found.tokens_per_second.likely == pytest.approx(200)
    assert not found.extrapolates and found.seconds.high / found.seconds.low < 2
    ran(50, 3)
    assert told(tmp_path).seconds.high / told(tmp_path).seconds.low > found.seconds.high / found.seconds.low


def test_what_cannot_be_trained_is_told(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="a lexical entry has no"):
        told(tmp_path, entry=load_entry("lexical"))
    with pytest.raises(ZooError, match=r"its sizes are not known.*zoo fetch"):
        told(tmp_path, entry=LLAMA.model_copy(update={"shape": None}))
    tight = told(tmp_path, entry=override(LLAMA, ["train.method=full"]))
    assert tight.memory.startswith("fail: ")


def test_the_command_tells_ways_and_notebooks() -> None:
    done = CliRunner().invoke(app, ["cost", "llama-3-8b", "--train", "--rows", "2000", "--folds", "2"])
    assert done.exit_code == 0, done.output
    for part in ("2 folds side by side", "train.gpus = 2", "in 9 hours", "in 12 hours", "memory: ok", "never trained on t4x2"):
        assert part in done.stdout
    as_data = CliRunner().invoke(app, ["cost", "llama-3-8b", "--train", "--rows", "2000", "--json"])
    assert TrainingForecast.model_validate(json.loads(as_data.stdout)).rows == 2000
