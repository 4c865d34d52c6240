"""The cost model of a member, fitted to measured runs.

Budgets are counted in its seconds:

seconds = load + sum over rows of (per_row + per_token * n + per_token_sq * n**2), n being a row's tokens. The square is the
attention of a row with itself. Time is fitted on tokens, never extrapolated from rows alone: 25,000 long rows and 25,000 short
ones differ several times. How far off the fit may be is in `zoo.cost.interval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.contracts import Cost

# Pieces of one run are few and alike, so the data alone often cannot tell rows from tokens from squares; left to themselves,
# least squares put everything on one of them, which is far off for other lengths. In prefill most time goes by tokens: the
# shares of the other two terms have a prior of 0 within SHARE.
SHARE = 0.2
NOISE, NOISE_PIECES = 0.1, 2.0  # relative deviation of a piece before any is seen, and how many pieces that belief counts for
MOST_PIECES = 16


@dataclass(frozen=True)
class Piece:
    """One timed piece of scoring.

    How many rows, their tokens, the sum of squared tokens, and its wall-clock seconds.
    """

    rows: int
    tokens: int
    tokens_sq: int
    seconds: float


def fit_cost(pieces: Sequence[Piece], *, load_seconds: float, target: str, machine: str, gpus: int) -> Cost:
    """Seconds of rows, tokens and tokens squared from timed pieces, none negative.

    The fit is scaled so that it gives the measured total exactly: the split between the terms is soft, but the sum is known.
    Without pieces the cost is the loading alone.
    """
    kept = merge_pieces([p for p in pieces if p.seconds > 0 and p.rows > 0], MOST_PIECES)
    terms = fit_terms(*arrays_of(kept)) if kept else np.zeros(3)
    return Cost(
        target=target,
        load_seconds=load_seconds,
        seconds_per_row=terms[0],
        seconds_per_token=terms[1],
        seconds_per_token_sq=terms[2],
        gpus=gpus,
        measured_rows=sum(p.rows for p in kept),
        measured_tokens=sum(p.tokens for p in kept),
        machine=machine,
        pieces=tuple((p.rows, p.tokens, p.tokens_sq, p.seconds) for p in kept),
    )


def merge_pieces(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """At most `most` pieces of about equally many, neighbours in mean length added up.

    All sums stay what they were.
    """
    ordered = sorted(pieces, key=lambda p: p.tokens / p.rows)
    groups = np.array_split(np.arange(len(ordered)), min(most, len(ordered)) or 1)
    return [
        Piece(
            sum(ordered[i].rows for i in group),
            sum(ordered[i].tokens for i in group),
            sum(ordered[i].tokens_sq for i in group),
            sum(ordered[i].seconds for i in group),
        )
        for group in groups
        if len(group)
    ]


def arrays_of(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray]:
    """Design (pieces, 3) of rows, tokens and tokens squared, and seconds (pieces,)."""
    design = np.array([[p.rows, p.tokens, p.tokens_sq] for p in pieces], dtype=np.float64)
    return design, np.array([p.seconds for p in pieces], dtype=np.float64)


def fit_terms(design: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds a row, a token and a token squared (3,) from pieces.

    `solve_terms` at the noise that the pieces show.
    """
    noise = noise_variance(design, seconds, solve_terms(design, seconds, noise=NOISE)) ** 0.5
    return solve_terms(design, seconds, noise=noise)


def noise_variance(design: np.ndarray, seconds: np.ndarray, terms: np.ndarray) -> float:
    """Relative variance of a piece about the fit.

    With few pieces mostly what is believed beforehand.
    """
    free = max(0, len(seconds) - int((terms > 0).sum()))
    residuals = 1 - design @ terms / seconds
    return float((NOISE_PIECES * NOISE**2 + (residuals**2).sum()) / (NOISE_PIECES + free))


def solve_terms(
    design: np.ndarray, seconds: np.ndarray, *, noise: float, shares: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Non-negative least squares of the pieces, scaled to the measured total.

    Each piece counts relative to its own seconds. `shares`: of the total, what rows and squares are drawn to, each within
    SHARE. Without tokens only rows count.
    """
    from scipy.optimize import nnls

    if not design[:, 1].any():
        return np.array([seconds.sum() / design[:, 0].sum(), 0.0, 0.0])
    scale = np.maximum(design.max(axis=0), 1.0)
    totals = design.sum(axis=0) / seconds.sum()
    pull = noise / SHARE * np.array([[totals[0], 0, 0], [0, 0, totals[2]]])
    wanted = np.concatenate([np.ones(len(seconds)), noise / SHARE * np.array(shares)])
    solution, _ = nnls(np.vstack([design / seconds[:, None], pull]) / scale, wanted)
    terms: np.ndarray = solution / scale
    predicted = float((design @ terms).sum())
    if predicted <= 0:
        return np.array([0.0, seconds.sum() / design[:, 1].sum(), 0.0])
    scaled: np.ndarray = terms * (seconds.sum() / predicted)
    return scaled


def row_seconds(cost: Cost, n_tokens: np.ndarray) -> np.ndarray:
    """Seconds of each row, loading left out; `n_tokens` (rows,) as the member reads them."""
    n = np.asarray(n_tokens, dtype=np.float64)
    seconds: np.ndarray = cost.seconds_per_row + cost.seconds_per_token * n + cost.seconds_per_token_sq * n * n
    return seconds
