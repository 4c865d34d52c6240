"""Each row's blend by the set of members that have scored it (its pattern).

The rehearsal and `ensemble predict` both blend by this module; the gain that a gate expects of a row is computed here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.plan import Blend, Gate, Pool, Triple
from ensemble.pools.blend import apply_blend
from ensemble.pools.gate import predicted_gain
from ensemble.pools.trees import rows_of

UNIFORM: Triple = (1 / 3, 1 / 3, 1 / 3)


@dataclass(frozen=True)
class Blended:
    """Blended probabilities (rows, 3), and which members made which rows.

    `made`, bool (rows,): whether any blend made a row; `patterns`: how many rows each set of members made. Rows that no blend
    made hold the prior; their set of members is the empty one.
    """

    p: np.ndarray
    made: np.ndarray
    patterns: dict[tuple[str, ...], int]


def blend_for(pools: Sequence[Pool], available: frozenset[str], *, planned: bool = True) -> Blend | None:
    """The blend for rows that have the members in `available`; None where no pool fits.

    A blend fitted on the rows of this coverage pattern comes first where `planned`; then the one fitted on all rows with
    exactly these members; then the best one that needs fewer.
    """
    fits = [pool for pool in pools if set(pool.members) <= available and pool.members]
    if not fits:
        return None
    exact = [pool for pool in fits if set(pool.members) == available]
    for pool in exact:
        if pool.planned == planned:
            return pool.blend
    fallbacks = exact or [pool for pool in fits if not pool.planned] or fits
    return min(fallbacks, key=lambda pool: pool.log_loss).blend


def blend_rows(
    pools: Sequence[Pool],
    tables: Mapping[str, np.ndarray],
    has: Mapping[str, np.ndarray],
    *,
    as_planned: np.ndarray,
    prior: Triple = UNIFORM,
    lengths: np.ndarray | None = None,
) -> Blended:
    """Every row's blend of the members that it has, and `prior` where no pool fits.

    `tables`: probabilities (rows, 3) by member; `has`: by member, the rows that it has scored, bool (rows,). A row that is
    `as_planned`, bool (rows,), has exactly the members that the plan's gates give it, and gets the blend fitted on such rows.
    `lengths` (rows, 3) of the texts, as `apply_blend` takes them.
    """
    names = tuple(has)
    p = np.tile(np.asarray(prior, dtype=np.float64), (len(as_planned), 1))
    made = np.zeros(len(p), dtype=bool)
    patterns: dict[tuple[str, ...], int] = {}
    keys, key_of = np.unique(np.column_stack([*has.values(), as_planned]), axis=0, return_inverse=True)
    for place, key in enumerate(keys):
        rows = np.flatnonzero(key_of.ravel() == place)
        there = frozenset(name for name, on in zip(names, key[:-1], strict=True) if on)
        blend = blend_for(pools, there, planned=bool(key[-1]))
        used = () if blend is None else tuple(name for name in names if name in blend.members)
        patterns[used] = patterns.get(used, 0) + len(rows)
        if blend is not None:
            p[rows] = apply_blend(blend, {name: tables[name][rows] for name in blend.members}, rows_of(lengths, rows))
            made[rows] = True
    return Blended(p, made, patterns)


def gated_gain(
    gate: Gate,
    pools: Sequence[Pool],
    tables: Mapping[str, np.ndarray],
    has: Mapping[str, np.ndarray],
    characters: np.ndarray,
    *,
    otherwise: float,
) -> np.ndarray:
    """Nats (rows,) that a gated member is expected to bring to each row.

    It is predicted from the blend of the members that its gate reads. `tables` and `has` as in `blend_rows`; `otherwise`: what
    it brings to a row that none of these members has scored.
    """
    given = {name: has[name] for name in gate.given}
    nowhere = np.zeros(len(characters), dtype=bool)
    before = blend_rows(pools, tables, given, as_planned=nowhere)
    return np.where(before.made, predicted_gain(gate, before.p, characters), otherwise)
