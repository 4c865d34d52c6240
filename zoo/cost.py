"""Measured runs -> seconds of a member on a target: the cost model that budgets are spent by.

seconds = load + sum over rows of (per_row + per_token * n + per_token_sq * n**2), n being a row's tokens. The square is the
attention of a row with itself. Time is fitted on tokens, never extrapolated from rows alone: 25,000 long rows and 25,000 short
ones differ several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.contracts import Cost


@dataclass(frozen=True)
class Piece:
    """One timed piece of scoring: how many rows, their tokens, the sum of squared tokens, and its wall-clock seconds."""

    rows: int
    tokens: int
    tokens_sq: int
    seconds: float


def fit_cost(pieces: Sequence[Piece], *, load_seconds: float, target: str, machine: str, gpus: int) -> Cost:
    """Non-negative least squares of seconds on (rows, tokens, tokens squared), each piece weighted by 1 / its seconds.

    The fit is scaled so that it gives the measured total exactly: pieces of one run are few and alike, so the split between
    the terms is soft, but the sum is known. Without pieces the cost is the loading alone.
    """
    from scipy.optimize import nnls

    measured = [p for p in pieces if p.seconds > 0 and p.rows > 0]
    terms = np.zeros(3)
    if measured:
        design = np.array([[p.rows, p.tokens, p.tokens_sq] for p in measured], dtype=np.float64)
        seconds = np.array([p.seconds for p in measured])
        scale = np.maximum(design.max(axis=0), 1.0)
        solution, _ = nnls(design / scale / seconds[:, None], np.ones(len(seconds)))
        terms = solution / scale
        predicted = float((design @ terms).sum())
        terms = terms * (seconds.sum() / predicted) if predicted > 0 else np.array([seconds.sum() / design[:, 0].sum(), 0, 0])
    return Cost(
        target=target,
        load_seconds=load_seconds,
        seconds_per_row=terms[0],
        seconds_per_token=terms[1],
        seconds_per_token_sq=terms[2],
        gpus=gpus,
        measured_rows=sum(p.rows for p in measured),
        measured_tokens=sum(p.tokens for p in measured),
        machine=machine,
    )


def row_seconds(cost: Cost, n_tokens: np.ndarray) -> np.ndarray:
    """Seconds of each row, loading left out; `n_tokens` (rows,) as the member reads them."""
    n = np.asarray(n_tokens, dtype=np.float64)
    seconds: np.ndarray = cost.seconds_per_row + cost.seconds_per_token * n + cost.seconds_per_token_sq * n * n
    return seconds
