"""Costs from timed pieces: sums kept, terms against another optimizer, intervals that grow and cover what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from zoo.contracts import Cost
from zoo.cost.fit import (
    MOST_PIECES,
    NOISE,
    NOISE_PIECES,
    SHARE,
    Piece,
    arrays_of,
    fit_cost,
    fit_terms,
    merge_pieces,
    row_seconds,
    solve_terms,
)
from zoo.cost.interval import COVERAGE, Interval, beyond_measured, file_seconds, spread_factor

HERE = {"target": "cpu", "machine": "this one", "gpus": 0}
lengths = st.lists(st.integers(1, 2000), min_size=1, max_size=30)


def pieces_of(n: np.ndarray, terms: np.ndarray, *, rows: int = 32, noise: float = 0.0, seed: int = 0) -> list[Piece]:
    """Pieces of `rows` rows of lengths `n`, the longest first, that take what `terms` say, times a lognormal deviation."""
    rng, pieces = np.random.default_rng(seed), []
    for part in np.split(np.sort(n)[::-1], len(n) // rows):
        totals = np.array([len(part), part.sum(), (part.astype(float) ** 2).sum()])
        seconds = float(totals @ terms * np.exp(noise * rng.standard_normal()))
        pieces.append(Piece(len(part), int(totals[1]), int(totals[2]), seconds))
    return pieces


def cost_of(pieces: list[Piece], load_seconds: float = 0.0) -> Cost:
    return fit_cost(pieces, load_seconds=load_seconds, **HERE)  # type: ignore[arg-type]


def draw_lengths(rows: int, seed: int, median: float = 450.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(median), 0.8, rows), 20, 2048).astype(int)


piece = st.builds(
    lambda rows, mean, spread, seconds: Piece(rows, rows * mean, int(rows * mean * mean * spread), seconds),
    st.integers(1, 200), st.integers(0, 2000), st.floats(1, 3), st.floats(1e-3, 1e3),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(piece, min_size=1, max_size=40))
def test_the_measured_sum_is_kept_and_nothing_is_negative(pieces: list[Piece]) -> None:
    cost = cost_of(pieces)
    terms = np.array([cost.seconds_per_row, cost.seconds_per_token, cost.seconds_per_token_sq])
    assert (terms >= 0).all()
    totals = np.array([[p.rows, p.tokens, p.tokens_sq] for p in pieces], dtype=float).sum(axis=0)
    assert totals @ terms == pytest.approx(sum(p.seconds for p in pieces), rel=1e-6)
    assert cost.measured_rows == totals[0] and cost.measured_tokens == totals[1]


@given(st.lists(piece, max_size=60), st.integers(1, 20))
def test_merged_pieces_have_the_same_sums(pieces: list[Piece], most: int) -> None:
    merged = merge_pieces(pieces, most)
    assert len(merged) == min(most, len(pieces))
    for name in ("rows", "tokens", "tokens_sq", "seconds"):
        assert sum(getattr(p, name) for p in merged) == pytest.approx(sum(getattr(p, name) for p in pieces))


def test_no_pieces_no_work_and_no_tokens_only_rows() -> None:
    assert file_seconds(cost_of([], 3.0), np.array([500.0])).likely == 3.0
    cost = cost_of([Piece(100, 0, 0, 2.0), Piece(50, 0, 0, 1.0)])
    assert cost.seconds_per_row == pytest.approx(0.02) and cost.seconds_per_token == 0
    assert file_seconds(cost, np.zeros(7), rows=1000).likely == pytest.approx(20)


@pytest.mark.parametrize("seed", range(5))
def test_terms_are_those_of_a_general_optimizer(seed: int) -> None:
    """The objective as its docstring says it, minimised by another method."""
    terms = np.array([0.05, 1e-3, 4e-7])
    design, seconds = arrays_of(pieces_of(draw_lengths(256, seed), terms, noise=0.1, seed=seed))
    noise, shares = 0.07, (0.1, -0.05)

    def objective(x: np.ndarray) -> float:
        own = x * terms
        misfit = (((design @ own) / seconds - 1) / noise) ** 2
        total = design.sum(axis=0) * own / seconds.sum()
        return float(misfit.sum() + ((total[0] - shares[0]) / SHARE) ** 2 + ((total[2] - shares[1]) / SHARE) ** 2)

    found = minimize(objective, np.ones(3), method="L-BFGS-B", bounds=[(0, None)] * 3, options={"ftol": 1e-15, "gtol": 1e-10})
    expected = found.x * terms
    expected *= seconds.sum() / (design @ expected).sum()
    got = solve_terms(design, seconds, noise=noise, shares=shares)
    assert design @ got == pytest.approx(design @ expected, rel=2e-3)


def test_true_terms_are_found_where_lengths_differ() -> None:
    terms = np.array([0.02, 1e-3, 3e-7])
    cost = cost_of(pieces_of(draw_lengths(512, 1), terms, noise=0.01))
    for median in (150.0, 450.0, 1200.0):
        n = draw_lengths(500, 2, median)
        truth = terms @ [len(n), n.sum(), (n.astype(float) ** 2).sum()]
        assert row_seconds(cost, n).sum() == pytest.approx(truth, rel=0.06)


NOISY = cost_of(pieces_of(draw_lengths(256, 3), np.array([0.05, 1e-3, 5e-7]), noise=0.1), 20.0)


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(1, 50_000), st.integers(1, 50_000), st.integers(0, 500))
def test_forecasts_grow_with_rows_and_lengths_and_hold_their_point(n: list[int], rows: int, more: int, longer: int) -> None:
    base = file_seconds(NOISY, np.array(n), rows=rows)
    grown = file_seconds(NOISY, np.array(n) + longer, rows=rows + more)
    assert base.low <= base.likely <= base.high
    assert grown.likely > base.likely and grown.low >= base.low and grown.high >= base.high


@settings(deadline=None)
@given(lengths, st.integers(1, 10_000))
def test_twice_the_rows_is_twice_the_work_and_copies_share_it(n: list[int], rows: int) -> None:
    load = NOISY.load_seconds
    one, two = (file_seconds(NOISY, np.array(n), rows=r).likely - load for r in (rows, 2 * rows))
    assert two == pytest.approx(2 * one)
    assert file_seconds(NOISY, np.array(n), rows=2 * rows, copies=2).likely - load == pytest.approx(one)
    assert row_seconds(NOISY, np.array(n)).mean() * rows == pytest.approx(one)


def test_an_interval_covers_what_it_says() -> None:
    """Files of 40 pieces, forecast from a few, with noise and shares of the terms as believed before any piece is seen."""
    rng, inside, trials = np.random.default_rng(0), 0, 150
    for trial in range(trials):
        terms = np.array([450, 1, 1 / 450]) * np.abs([rng.normal(0, SHARE), 1, rng.normal(0, SHARE)]) * 1e-3
        noise = min(0.5, NOISE * float(np.sqrt(NOISE_PIECES / rng.chisquare(NOISE_PIECES))))
        count = int(rng.choice([3, 6, 12]))
        cost = cost_of(pieces_of(draw_lengths(32 * count, trial), terms, noise=noise, seed=trial))
        n = draw_lengths(1280, 1000 + trial)
        truth = sum(p.seconds for p in pieces_of(n, terms, noise=noise, seed=2000 + trial))
        found = file_seconds(cost, n)
        inside += found.low <= truth <= found.high
    assert abs(inside / trials - COVERAGE) < 0.1


def width(cost: Cost, n: np.ndarray) -> float:
    found = file_seconds(cost, n)
    return float(np.log(found.high / found.low))


def test_noise_few_pieces_and_longer_rows_widen() -> None:
    terms, n = np.array([0.05, 1e-3, 5e-7]), draw_lengths(640, 5)
    calm, noisy = (cost_of(pieces_of(n, terms, noise=noise)) for noise in (0.02, 0.2))
    assert width(calm, n) < width(noisy, n)
    assert width(calm, n) < width(cost_of(pieces_of(n[:64], terms, noise=0.02)), n)
    assert width(calm, n) < width(calm, n * 4)


def test_old_cards_are_read_and_their_spread_is_said_to_be_assumed() -> None:
    old = Cost(target="cpu", load_seconds=1, seconds_per_token=1e-3, measured_rows=500, machine="this one")
    assert Cost.model_validate_json(old.model_dump_json(exclude={"pieces"})) == old
    assert width(old, np.full(100, 300)) > 0.4
    assert beyond_measured(old, np.full(100, 300), "this one") == [
        "the measurement's pieces were not kept: its spread is assumed"
    ]


def test_what_goes_beyond_a_measurement_is_told() -> None:
    n = np.sort(draw_lengths(256, 7))[64:192]  # neither the shortest nor the longest rows
    cost = cost_of(pieces_of(n, np.array([0, 1e-3, 0])))
    assert beyond_measured(cost, n, "this one") == []
    assert "measured on this one, not on that one" in beyond_measured(cost, n, "that one")
    assert any("rows longer than those measured" in note for note in beyond_measured(cost, n * 3, "this one"))
    assert any("rows shorter than those measured" in note for note in beyond_measured(cost, n // 4, "this one"))
    few = cost_of(pieces_of(n[:32], np.array([0, 1e-3, 0])))
    assert "measured on 32 rows only" in beyond_measured(few, n[:32], "this one")
    assert beyond_measured(Cost(target="cpu", load_seconds=1), n, "x") == ["the cost was declared, not measured"]


def test_a_cost_keeps_few_pieces_however_long_the_run() -> None:
    cost = cost_of(pieces_of(draw_lengths(32 * 100, 8), np.array([0.01, 1e-3, 0])))
    assert len(cost.pieces) == MOST_PIECES
    design, seconds = arrays_of([Piece(*p) for p in cost.pieces])
    assert fit_terms(design, seconds)[1] == pytest.approx(cost.seconds_per_token)


@given(st.floats(0.01, 0.8), st.floats(0.01, 0.8), st.floats(0.1, 1e4))
def test_a_product_of_intervals_is_that_of_lognormal_numbers(a: float, b: float, likely: float) -> None:
    first = Interval(low=0, likely=likely, high=likely).model_copy(update=scaled(spread_factor(a), likely))
    found, expected = first.times(spread_factor(b)), spread_factor(float(np.hypot(a, b)))
    assert (found.low, found.likely, found.high) == pytest.approx(tuple(likely * x for x in ends(expected)))


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.low, interval.likely, interval.high


def scaled(interval: Interval, by: float) -> dict[str, Any]:
    return dict(zip(("low", "likely", "high"), (by * x for x in ends(interval)), strict=True))


def test_an_interval_in_disorder_is_refused() -> None:
    with pytest.raises(ValueError, match="not in order"):
        Interval(low=2, likely=1, high=3)
