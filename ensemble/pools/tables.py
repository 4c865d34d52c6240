"""Pool whole tables, as of judges: fitted on the labelled rows, applied to all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.members.rows import FEWEST_ROWS
from ensemble.members.table import FOLDS, balanced_folds
from ensemble.pools.blend import AS_IS, RIDGED_LOG, RIDGED_LOGISTIC, BlendSpec, apply_blend, fit_blend
from ensemble.pools.crossfit import cross_fit, named
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import NO_FOLD

MOST_ROWS = 5_000  # by which the choice between pools is made
LEAST_LOSS = 1e-4  # nats: a pool that loses so little more than a table is as good
# Equal weights are among them: on few rows every fit may cost more than it gains.
CANDIDATES: tuple[BlendSpec, ...] = (AS_IS, RIDGED_LOG, RIDGED_LOGISTIC, BlendSpec("linear", 0.01))


@dataclass(frozen=True)
class Compared:
    """Log loss of a table on its labelled rows, and the pool's minus its own there."""

    name: str
    rows: int
    log_loss: float
    log_loss_se: float
    difference: float
    difference_se: float


@dataclass(frozen=True)
class Pooled:
    """Probabilities (rows, 3), NaN where no table has a row, and folds (rows,).

    A labelled row was left out with its fold. `pool`, `beside`: log loss out of fold, and of equal weights and each table; None
    and nothing without labels. `kinds`: by set of tables how many rows it made, and by which pool.
    """

    p: np.ndarray
    fold: np.ndarray
    kinds: dict[tuple[str, ...], tuple[int, str]]
    pool: Compared | None = None
    beside: tuple[Compared, ...] = ()

    @property
    def better(self) -> Compared | None:
        """The best of what loses less as it is than the pool does out of fold, on all of its rows."""
        if self.pool is None:
            return None
        lower = [line for line in self.beside if line.rows == self.pool.rows and line.difference > LEAST_LOSS]
        return min(lower, key=lambda line: line.log_loss, default=None)


def pool_tables(names: Sequence[str], p: np.ndarray, y: np.ndarray, groups: np.ndarray, *, ties: bool = True) -> Pooled:
    """One table of several.

    `p` (tables, rows, 3), NaN where a table lacks a row; `y` (rows,) labels, -1 where there is none; `groups` (rows,), the same
    number for prompts that may not be parted. Rows that have the same tables share a pool: that of CANDIDATES which loses least
    out of fold, fitted on all labelled rows that have these tables; for rows of a fold both the choice and the fit are made on
    the others alone. Where fewer than FEWEST_ROWS are labelled, equal weights: the mean of the probabilities.
    """
    has = ~np.isnan(p[:, :, 0])
    labelled = (y >= 0) & has.any(axis=0)
    fold = np.full(len(y), NO_FOLD)
    if labelled.any():
        fold[labelled] = balanced_folds(groups[labelled])
    out, even = np.full((len(y), 3), np.nan), np.full((len(y), 3), np.nan)
    kinds: dict[tuple[str, ...], tuple[int, str]] = {}
    for key in np.unique(has.T, axis=0):
        chosen = np.flatnonzero(key)
        if not len(chosen):
            continue
        rows = np.flatnonzero((key == has.T).all(axis=1))
        fitting = np.flatnonzero(labelled & has[chosen].all(axis=0))
        own = [names[j] for j in chosen]
        even[rows] = p[chosen][:, rows].mean(axis=0)
        out[rows], kind = even[rows], "equal weights"
        if len(fitting) >= FEWEST_ROWS and len(np.unique(fold[fitting])) == FOLDS:
            out[rows], kind = _fitted(own, p[chosen], y, fold, rows, fitting, ties=ties)
        kinds[tuple(own)] = (len(rows), kind)
    fold = np.where(labelled, fold, NO_FOLD)
    if not labelled.any():
        return Pooled(out, fold, kinds)
    known = np.flatnonzero(labelled)
    losses = log_loss_rows(out[known], y[known])
    tables = {"equal weights": even, **named(names, p)}
    beside = tuple(_compared(name, table[known], losses, y[known], groups[known]) for name, table in tables.items())
    return Pooled(out, fold, kinds, _compared("pool", out[known], losses, y[known], groups[known]), tuple(filter(None, beside)))


def _fitted(
    names: Sequence[str], p: np.ndarray, y: np.ndarray, fold: np.ndarray, rows: np.ndarray, fitting: np.ndarray, *, ties: bool
) -> tuple[np.ndarray, str]:
    """Triples of `rows`, those that are in `fitting` out of fold, and the pool that makes the others."""
    specs = [replace(spec, ties=ties) for spec in CANDIDATES]
    best = _best(specs, names, p, y, fold, fitting)
    out = apply_blend(fit_blend(best, names, p[:, fitting], y[fitting]), named(names, p[:, rows]))
    for one in np.unique(fold[fitting]):
        held, others = rows[fold[rows] == one], fitting[fold[fitting] != one]
        spec = _best(specs, names, p, y, fold, others)
        out[fold[rows] == one] = apply_blend(fit_blend(spec, names, p[:, others], y[others]), named(names, p[:, held]))
    return out, f"{best.pool} pool" if best.fitted else "equal weights"


def _best(
    specs: Sequence[BlendSpec], names: Sequence[str], p: np.ndarray, y: np.ndarray, fold: np.ndarray, rows: np.ndarray
) -> BlendSpec:
    """The pool that loses least out of fold on `rows`, of which at most MOST_ROWS are looked at."""
    few = rows[np.arange(len(rows)) % -(-len(rows) // MOST_ROWS) == 0]
    tables = [cross_fit(spec, names, p[:, few], y[few], fold[few]) for spec in specs]
    return specs[int(np.argmin([log_loss_rows(table, y[few]).mean() for table in tables]))]


def _compared(name: str, table: np.ndarray, pool: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Compared | None:
    there = ~np.isnan(table[:, 0])
    if not there.any():
        return None
    losses = log_loss_rows(table[there], y[there])
    loss, error = mean_and_error(losses, groups[there])
    difference, difference_error = mean_and_error(pool[there] - losses, groups[there])
    return Compared(name, int(there.sum()), loss, error, difference, difference_error)
