"""The interval of a cost: low, likely and high seconds for a file.

It also says in what a file goes beyond what was measured. The pieces that a cost was fitted to are fitted again, many times,
each time with noise of the size they show: samples of the posterior of a linear model with non-negative terms ("randomize then
optimize": Bardsley et al. 2014, SIAM J. Sci. Comput. 36). The same draws serve every file, and each draw grows with every row
and token, so low and high do too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from zoo.contracts import Contract, Cost
from zoo.cost.fit import NOISE_PIECES, SHARE, Piece, arrays_of, fit_terms, noise_variance, solve_terms

COVERAGE = 0.8  # of an interval from low to high
DRAWS = 400
Z = 1.2815515594457831  # of the standard normal at (1 + COVERAGE) / 2
# Relative deviations, of the logarithm. Loading: 33 and 42 s were measured for one entry on one machine, about 0.2 apart.
LOAD_SPREAD = 0.2
UNKNOWN_SPREAD = 0.25  # of a cost that was declared, or measured before pieces were kept
FEW_ROWS = 100
BEYOND = 1.25  # pieces know mean lengths only: a row counts as longer than measured from so many times the longest piece's


class Interval(Contract):
    """Low, likely and high: about 80 in 100 come to lie between low and high."""

    low: Annotated[float, Field(ge=0)]
    likely: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _check(self) -> Interval:
        if not self.low <= self.likely <= self.high:
            raise ValueError(f"not in order: {self.low:g}, {self.likely:g}, {self.high:g}")
        return self

    def times(self, factor: Interval) -> Interval:
        """The product with another, independent one.

        Spreads of logarithms add as squares on each side.
        """
        likely = self.likely * factor.likely
        below = np.hypot(np.log(self.likely / self.low), np.log(factor.likely / factor.low)) if self.low else np.inf
        above = np.hypot(np.log(self.high / self.likely), np.log(factor.high / factor.likely)) if self.likely else 0.0
        return Interval(low=float(likely * np.exp(-below)), likely=likely, high=float(likely * np.exp(above)))


def spread_factor(spread: float) -> Interval:
    """A factor of 1 whose logarithm has the standard deviation `spread`."""
    return Interval(low=float(np.exp(-Z * spread)), likely=1.0, high=float(np.exp(Z * spread)))


@dataclass(frozen=True)
class Draws:
    """Samples of what a cost may truly be.

    `terms` (DRAWS, 3): seconds a row, token and token squared. `noise` (DRAWS,): the logarithm of one piece's deviation.
    `load` (DRAWS,): seconds of loading. `piece_seconds`: mean seconds of a piece.
    """

    terms: np.ndarray
    noise: np.ndarray
    load: np.ndarray
    piece_seconds: float


@functools.lru_cache(maxsize=64)
def draws_of(cost: Cost, *, seed: int = 0) -> Draws:
    """The same samples for the same cost."""
    rng = np.random.default_rng(seed)
    point = np.array([cost.seconds_per_row, cost.seconds_per_token, cost.seconds_per_token_sq])
    load = cost.load_seconds * np.exp(LOAD_SPREAD * rng.standard_normal(DRAWS))
    if not cost.pieces:
        factors = np.exp(UNKNOWN_SPREAD * rng.standard_normal(DRAWS))
        return Draws(point * factors[:, None], np.zeros(DRAWS), load, 1.0)
    design, seconds = arrays_of([Piece(*piece) for piece in cost.pieces])
    fitted = fit_terms(design, seconds)
    degrees = NOISE_PIECES + max(0, len(seconds) - int((fitted > 0).sum()))
    sigma = np.sqrt(noise_variance(design, seconds, fitted) * degrees / rng.chisquare(degrees, DRAWS))
    noisy = seconds * np.exp(sigma[:, None] * rng.standard_normal((DRAWS, len(seconds))))
    shares = SHARE * rng.standard_normal((DRAWS, 2))
    terms = [solve_terms(design, y, noise=s, shares=(a, b)) for y, s, (a, b) in zip(noisy, sigma, shares, strict=True)]
    noise = np.minimum(sigma, 1.0) * rng.standard_normal(DRAWS)
    return Draws(np.array(terms), np.clip(noise, -1.5, 1.5), load, float(seconds.mean()))


def file_seconds(cost: Cost, lengths: np.ndarray, *, rows: int | None = None, copies: int = 1, seed: int = 0) -> Interval:
    """Seconds to score a file: loading, then its rows spread over `copies` of the model.

    `lengths` (n,): tokens of rows like those of the file; `rows`: how many it has, n by default.
    """
    totals = totals_of(lengths, rows)
    point = np.array([cost.seconds_per_row, cost.seconds_per_token, cost.seconds_per_token_sq])
    draws, work = draws_of(cost, seed=seed), float(point @ totals)
    pieces = max(1.0, work / draws.piece_seconds)
    total = draws.load + (draws.terms @ totals) * np.exp(draws.noise / np.sqrt(pieces)) / copies
    low, high = np.quantile(total, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    likely = cost.load_seconds + work / copies
    return Interval(low=min(float(low), likely), likely=likely, high=max(float(high), likely))


def totals_of(lengths: np.ndarray, rows: int | None = None) -> np.ndarray:
    """Rows, tokens and tokens squared (3,) of a file with such lengths.

    `rows`: of so many rows (default: as many as there are).
    """
    n = np.asarray(lengths, dtype=np.float64)
    return (len(n) if rows is None else rows) * np.array([1.0, n.mean(), (n * n).mean()])


def beyond_measured(cost: Cost, lengths: np.ndarray, machine: str) -> list[str]:
    """In what a forecast for rows of these lengths on `machine` goes beyond the measurement.

    Empty where in nothing.
    """
    if not cost.machine:
        return ["the cost was declared, not measured"]
    notes = []
    if cost.machine != machine:
        notes.append(f"measured on {cost.machine}, not on {machine}")
    if cost.measured_rows < FEW_ROWS:
        notes.append(f"measured on {cost.measured_rows} rows only")
    if not cost.pieces:
        notes.append("the measurement's pieces were not kept: its spread is assumed")
        return notes
    read = [piece for piece in cost.pieces if piece[1]]
    if read:
        shortest, longest = min(t / r for r, t, _, _ in read), max(q / t for _, t, q, _ in read)
        n = np.asarray(lengths, dtype=np.float64)
        for what, outside, edge in (("longer", n > BEYOND * longest, longest), ("shorter", n < shortest / BEYOND, shortest)):
            share = float(n[outside].sum() / max(n.sum(), 1.0))
            if share > 0.01:
                notes.append(f"{share:.0%} of the tokens are in rows {what} than those measured (about {edge:.0f} tokens)")
    return notes
