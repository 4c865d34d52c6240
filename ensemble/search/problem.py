"""The problem of one search: members on labelled rows, prices, plans and shared fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ensemble.members.table import Members
from ensemble.plan import PoolKind
from ensemble.pools.blend import SPECS, BlendSpec, apply_blend, fit_blend
from ensemble.pools.crossfit import DEFAULT_SPECS, Evaluator, named
from ensemble.search.prices import Prices
from ensemble.search.subsets import Fitter, Subset
from zoo.contracts import Say

NOT_JUDGED = np.empty(0)  # losses of a candidate that only the rehearsal judges
FEW_ROWS = 20_000  # the choice between all pools, and every choice of a rehearsal, looks at no more rows than this


@dataclass(frozen=True)
class Candidate:
    """A plan before it is assembled: who sees which rows, its seconds and its losses.

    `seconds` without the margin; `losses` (rows,) out of fold, or NOT_JUDGED; `seen`: rows, bool (rows,), of the members that
    do not see all. `work`: seconds of each member in `seen`, over all its copies, for the file to be predicted. `own_blend`:
    coverage patterns (sorted members) whose rows get a blend of their own.
    """

    whole: Subset
    spec: BlendSpec
    seconds: float
    losses: np.ndarray
    seen: dict[int, np.ndarray] = field(default_factory=dict)
    own_blend: frozenset[Subset] = frozenset()
    work: dict[int, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def members(self) -> Subset:
        return (*self.whole, *self.seen)


@dataclass(frozen=True)
class Problem:
    """Members and prices, and the fits and judgements that all steps share.

    `has_trees`: whether the labelled rows of the whole problem allow boosted trees, which a part of them does not change.
    `judged`: whole-file candidates by their members; `quick`: rough losses by members and pool. Both fill as the search goes.
    `pools`: the kinds of pool that a plan may have; none: all.
    """

    members: Members
    prices: Prices
    position_bias: bool = False
    say: Say = lambda _: None
    has_trees: bool = False
    judged: dict[Subset, Candidate] = field(default_factory=dict)
    quick: dict[tuple[Subset, BlendSpec], float] = field(default_factory=dict)
    pools: tuple[PoolKind, ...] = ()

    @cached_property
    def evaluator(self) -> Evaluator:
        """Out-of-fold tables of sets of members."""
        return Evaluator(self.members.names, self.members.p, self.members.y, self.members.folds)

    @cached_property
    def fitter(self) -> Fitter:
        """Exact linear pools of sets of members, after each member's own recalibration."""
        return Fitter(recalibrated_truth(self.members), outcomes=3 if self.members.ties else 2)

    @cached_property
    def specs(self) -> tuple[BlendSpec, ...]:
        """The few pools that every candidate is judged by."""
        return self._allowed(DEFAULT_SPECS.values())

    @cached_property
    def all_specs(self) -> tuple[BlendSpec, ...]:
        """Every pool there is, for the last few candidates."""
        return self._allowed(SPECS)

    def _allowed(self, specs: Iterable[BlendSpec]) -> tuple[BlendSpec, ...]:
        """Those of `specs` whose kind was asked for, or all of that kind; where no search knows the kind, `specs`."""
        chosen = [spec for spec in specs if self.may_be(spec)] or [spec for spec in SPECS if self.may_be(spec)]
        return tuple(map(self.of_kind, chosen or specs))

    def may_be(self, spec: BlendSpec) -> bool:
        """Whether a plan may have this pool."""
        return not self.pools or spec.pool in self.pools

    def of_kind(self, spec: BlendSpec) -> BlendSpec:
        """The pool for battles of this kind.

        With or without ties, and with a bias between the sides if that was asked for.
        """
        return spec.of_kind(ties=self.members.ties, position_bias=self.position_bias)

    def on_rows(self, keep: np.ndarray) -> Problem:
        """The same problem that knows only the rows of `keep` (bool, rows); it says nothing."""
        members, prices = self.members.rows(keep), self.prices.on_rows(keep)
        return Problem(members, prices, self.position_bias, has_trees=self.has_trees, pools=self.pools)

    def thinned(self) -> Problem:
        """The problem on at most FEW_ROWS of the rows, evenly; itself where there are no more.

        Its fits are kept.
        """
        return self if len(self.members.y) <= FEW_ROWS else self._on_few_rows

    @property
    def thinned_rows(self) -> np.ndarray:
        """Which rows, bool (rows,), `thinned` keeps.

        One of each few, and not each time the same: rows are in order of ids, and where sources or an exchange of sides
        alternate in a file, every second row would be all of one kind. Its folds are its own, and no part of this problem's.
        """
        count = len(self.members.y)
        firsts = np.arange(0, count, step := -(-count // FEW_ROWS))
        kept = np.zeros(count, dtype=bool)
        kept[np.minimum(firsts + np.random.default_rng(0).integers(0, step, len(firsts)), count - 1)] = True
        return kept

    @cached_property
    def _on_few_rows(self) -> Problem:
        return self.on_rows(self.thinned_rows)


def recalibrated_truth(members: Members) -> np.ndarray:
    """Probabilities of the true label (members, rows), each member recalibrated.

    A logistic pool of one recalibrates it. Subsets are compared on these, so that a member that is informative but
    overconfident is not passed over.
    """
    rows = np.arange(len(members.y))
    spec = replace(DEFAULT_SPECS["logistic"], ties=members.ties)
    out = np.empty(members.p.shape[:2])
    for j, (name, table) in enumerate(zip(members.names, members.p, strict=True)):
        blend = fit_blend(spec, [name], table[None], members.y)
        out[j] = apply_blend(blend, named([name], table[None]))[rows, members.y]
    return out
