"""Pool whole tables, as of judges: fitted on the labelled rows, out of fold there, and applied to all rows."""

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

# Equal weights are among them: on few rows every fit may cost more than it gains.
CANDIDATES: tuple[BlendSpec, ...] = (AS_IS, RIDGED_LOG, RIDGED_LOGISTIC, BlendSpec("linear", 0.01))


@dataclass(frozen=True)
class Compared:
    """Log loss of a table on the labelled rows that it has, and the pool's minus its own on the same rows."""

    name: str
    rows: int
    log_loss: float
    log_loss_se: float
    difference: float
    difference_se: float


@dataclass(frozen=True)
class Pooled:
    """Probabilities (rows, 3), NaN where no table has a row, and the fold (rows,) that each labelled row was left out with.

    `pool`, `beside`: log loss out of fold, and of equal weights and each table; None and nothing without labels. `kinds`: by
    set of tables how many rows it made, and by which pool.
    """

    p: np.ndarray
    fold: np.ndarray
    kinds: dict[tuple[str, ...], tuple[int, str]]
    pool: Compared | None = None
    beside: tuple[Compared, ...] = ()


def pool_tables(names: Sequence[str], p: np.ndarray, y: np.ndarray, groups: np.ndarray, *, ties: bool = True) -> Pooled:
    """One table of several.

    `p` (tables, rows, 3), NaN where a table lacks a row; `y` (rows,) labels, -1 where there is none; `groups` (rows,), the same
    number for prompts that may not be parted. Rows that have the same tables share a pool: that of CANDIDATES which loses least
    out of fold, fitted on all labelled rows that have these tables; rows of a fold by the choice and the fit of the others.
    Where fewer than FEWEST_ROWS are labelled, equal weights: the mean of the probabilities.
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
    names: Sequence[str],
    p: np.ndarray,
    y: np.ndarray,
    fold: np.ndarray,
    rows: np.ndarray,
    fitting: np.ndarray,
    *,
    ties: bool,
) -> tuple[np.ndarray, str]:
    """Triples of `rows`, those that are in `fitting` out of fold, and the pool that makes the others."""
    specs = [replace(spec, ties=ties) for spec in CANDIDATES]
    folds, labels = fold[fitting], y[fitting]
    tables = np.stack([cross_fit(spec, names, p[:, fitting], labels, folds) for spec in specs])
    losses = np.stack([log_loss_rows(table, labels) for table in tables])
    held_out = np.empty((len(fitting), 3))
    for held in (folds == one for one in np.unique(folds)):
        held_out[held] = tables[losses[:, ~held].mean(axis=1).argmin(), held]
    spec = specs[int(losses.mean(axis=1).argmin())]
    blend = fit_blend(spec, names, p[:, fitting], labels)
    out = apply_blend(blend, named(names, p[:, rows]))
    place = np.full(len(y), -1)
    place[fitting] = np.arange(len(fitting))
    of_fit = place[rows] >= 0
    out[of_fit] = held_out[place[rows[of_fit]]]
    return out, f"{blend.pool} pool" if spec.fitted else "equal weights"


def _compared(name: str, table: np.ndarray, pool: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Compared | None:
    there = ~np.isnan(table[:, 0])
    if not there.any():
        return None
    losses = log_loss_rows(table[there], y[there])
    loss, error = mean_and_error(losses, groups[there])
    difference, difference_error = mean_and_error(pool[there] - losses, groups[there])
    return Compared(name, int(there.sum()), loss, error, difference, difference_error)
