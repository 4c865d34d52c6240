"""Choosing a plan at a budget, by out-of-fold log loss of sets and coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ensemble.budget.duration import format_seconds
from ensemble.budget.pricing import Pricing
from ensemble.budget.schedule import Load, fits, makespan, overhead_seconds
from ensemble.members.table import Members
from ensemble.pools.blend import SPECS, BlendSpec, apply_blend, fit_blend
from ensemble.pools.crossfit import DEFAULT_SPECS, Evaluator, Progress, choose_losses, named
from ensemble.search.coverage import LEAST_COVERAGE, cover
from ensemble.search.subsets import EXACT_MEMBERS, Fitter, Scored, Searched, Subset, search_branch_and_bound, search_exactly
from zoo.errors import ZooError
from zoo.scores.tables import log_loss_rows

FINALISTS = 10
COVERAGE_TRIALS = 16
LEAST_SAVING = 0.05  # a plan that is cheaper by less is not worth any log loss
JUDGED_ROWS = 300_000  # few sets on few rows are all judged out of fold
QUICK_ROWS = 6_000
ROUNDING = 1e-9  # sums of the same seconds in another order differ by less than this share of them
FEW_ROWS = 20_000  # the choice between all pools, and every choice of a rehearsal, looks at no more rows than this
_PAIRS = 6
_CLIMBS = 8


@dataclass(frozen=True)
class Candidate:
    """A plan before it is written down.

    Who sees every row, who sees which, its seconds without margin, its losses (rows,).

    `work`: seconds of each member in `seen`, over all its copies, for the file to be predicted.
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


class Chooser:
    """Everything that choosing at any budget shares.

    Fits and out-of-fold tables are computed once.
    """

    def __init__(
        self, members: Members, pricing: Pricing, *, say: Progress = lambda _: None, position_bias: bool = False
    ) -> None:
        self.members, self.pricing, self.say, self.position_bias = members, pricing, say, position_bias
        self.specs = [_with_bias(spec, position_bias) for spec in DEFAULT_SPECS.values()]
        self.all_specs = [_with_bias(spec, position_bias) for spec in SPECS]
        self.overhead = overhead_seconds(pricing.rows)
        self.evaluator = Evaluator(members.names, members.p, members.y, members.folds)
        self.fitter = Fitter(recalibrated_truth(members))
        self._seconds: dict[Subset, float] = {}
        self._judged: dict[Subset, Candidate] = {}
        self._quick: dict[tuple[Subset, BlendSpec], float] = {}

    def on_rows(self, keep: np.ndarray) -> Chooser:
        """A chooser of the same problem that knows only the rows of `keep` (bool, rows).

        It says nothing.
        """
        return Chooser(self.members.rows(keep), self.pricing.on_rows(keep), position_bias=self.position_bias)

    def thinned(self) -> Chooser:
        """A chooser on at most FEW_ROWS of the rows, evenly: enough to choose by.

        Itself where there are no more.
        """
        every = -(-len(self.members.y) // FEW_ROWS)
        return self if every == 1 else self.on_rows(np.arange(len(self.members.y)) % every == 0)  # rows are in order of ids

    def seconds(self, subset: Subset) -> float:
        """Seconds of a whole-file plan, overhead included, without the margin."""
        key = tuple(sorted(subset))
        if key not in self._seconds:
            self._seconds[key] = self.overhead + makespan(self.pricing.loads(key), self.pricing.devices)
        return self._seconds[key]

    def affordable(self, available: float) -> Callable[[Subset], bool]:
        """Whether a whole-file plan of a subset takes at most `available` seconds."""
        room = (available - self.overhead) * (1 + ROUNDING)
        known: dict[Subset, bool] = {}

        def check(subset: Subset) -> bool:
            key = tuple(sorted(subset))
            if key not in known:
                known[key] = fits(self.pricing.loads(key), self.pricing.devices, room)
            return known[key]

        return check

    def require_feasible(self, available: float, margin: float) -> None:
        """ZooError with the cheapest plan and the budget that it needs, where nothing is affordable."""
        singles = {j: self.seconds((j,)) for j in range(len(self.members.names))}
        cheapest = min(singles, key=lambda j: singles[j])
        if singles[cheapest] > available * (1 + ROUNDING):
            needed = singles[cheapest] * margin
            raise ZooError(
                f"budget {format_seconds(available * margin)} is too small for {self.pricing.rows} rows: the cheapest plan is "
                f"{self.members.names[cheapest]} alone and needs --budget {int(np.ceil(needed))}s (margin {margin:g} included)"
            )

    def search(self, available: float) -> Searched:
        """Whole-file subsets within `available` seconds by the linear pool's exact loss.

        See `ensemble.search.subsets`.
        """
        affordable = self.affordable(available)
        if len(self.members.names) <= EXACT_MEMBERS:
            return search_exactly(self.fitter.true, affordable, fitter=self.fitter)
        return search_branch_and_bound(self.fitter.true, affordable, fitter=self.fitter)

    def judge(self, subset: Subset) -> Candidate:
        """A whole-file candidate with its losses out of fold."""
        key = tuple(sorted(subset))
        if key not in self._judged:
            losses, spec = self.evaluator.losses(key, self.specs)
            self._judged[key] = Candidate(key, spec, self.seconds(key), losses)
        return self._judged[key]

    def judge_covered(self, candidate: Candidate) -> Candidate:
        """A coverage plan judged as `judge` does a whole-file one.

        Each fold's pool is the one that the other folds prefer.

        A search compares coverage plans by one pool, chosen on all rows, which flatters them beside whole-file plans.
        """
        arguments = (self.members.characters, self.pricing.row_seconds, candidate.whole, list(candidate.work.items()))
        covered = [cover(self.evaluator, spec, *arguments) for spec in self.specs]
        losses, best = choose_losses(np.stack([c.losses for c in covered]), self.members.folds)
        seen = covered[best].seen
        seconds = self.overhead + makespan(self.loads(candidate.whole, seen), self.pricing.devices)
        return replace(
            candidate, spec=self.specs[best], seconds=seconds, losses=losses, seen=seen, own_blend=covered[best].own_blend
        )

    def finalists(self, searched: Searched) -> list[Scored]:
        """Subsets worth judging out of fold.

        Those that no cheaper one beats, and the best ones whatever they cost.
        """
        front: list[Scored] = []
        cheapest = np.inf
        for scored in searched.subsets:
            seconds = self.seconds(scored.members)
            if seconds < cheapest - 1e-9:
                front.append(scored)
                cheapest = seconds
        if len(front) > FINALISTS:  # the best half, the rest evenly
            rest = np.linspace(FINALISTS // 2, len(front) - 1, FINALISTS - FINALISTS // 2).astype(int)
            front = front[: FINALISTS // 2] + [front[i] for i in rest]
        return list({s.members: s for s in (*front, *searched.subsets[:3])}.values())

    def whole_file(self, searched: Searched, available: float) -> list[Candidate]:
        """Judged whole-file candidates within `available` seconds."""
        everything = len(searched.subsets) * len(self.members.y) <= JUDGED_ROWS
        finalists = list(searched.subsets) if everything else self.finalists(searched)
        self.say(f"judging {len(finalists)} of {len(searched.subsets)} affordable sets out of fold")
        judged = {scored.members: self.judge(scored.members) for scored in finalists}
        affordable = self.affordable(available)
        best = min(judged.values(), key=lambda c: c.loss)
        for _ in range(_CLIMBS):  # other pools than the linear one gain from members that the linear one has no use for
            options = sorted(filter(affordable, self._neighbours(best.whole)), key=lambda s: self._quick_loss(s, best.spec))
            climbed = [self.judge(subset) for subset in options[:3]]
            judged |= {candidate.whole: candidate for candidate in climbed}
            if not climbed or min(c.loss for c in climbed) >= best.loss - 1e-6:
                break
            best = min(climbed, key=lambda c: c.loss)
        shrinking = best.whole
        while len(shrinking) > 2:  # what parsimony may prefer
            smaller = [tuple(k for k in shrinking if k != j) for j in shrinking]
            shrinking = min(smaller, key=lambda s: self._quick_loss(s, best.spec))
            judged[shrinking] = self.judge(shrinking)
        return list(judged.values())

    def _neighbours(self, subset: Subset) -> list[Subset]:
        """Sets with one member more; where members are few also those with one exchanged."""
        others = [j for j in range(len(self.members.names)) if j not in subset]
        added = [tuple(sorted((*subset, j))) for j in others]
        if len(self.members.names) > EXACT_MEMBERS:
            return added
        return added + [tuple(sorted((*(k for k in subset if k != left), j))) for left in subset for j in others]

    def _quick_loss(self, subset: Subset, spec: BlendSpec) -> float:
        """In-sample log loss on a tenth of the rows or so: good enough to rank sets for a closer look."""
        key = (subset, spec)
        if key not in self._quick:
            few = slice(None, None, -(-len(self.members.y) // QUICK_ROWS))
            names, p = [self.members.names[j] for j in subset], self.members.p[list(subset)][:, few]
            blend = fit_blend(spec, names, p, self.members.y[few])
            self._quick[key] = float(log_loss_rows(apply_blend(blend, named(names, p)), self.members.y[few]).mean())
        return self._quick[key]

    def coverage(self, whole: Sequence[Candidate], available: float) -> list[Candidate]:
        """Coverage plans that grow from whole-file ones.

        One more member on the rows where it pays, then a second.
        """
        options: list[tuple[float, Subset, int, float]] = []
        for base in whole:
            for j in range(len(self.members.names)):
                if j not in base.whole:
                    options += self._option(base, j, available)
        options.sort(key=lambda option: option[0])
        self.say(f"judging {min(len(options), COVERAGE_TRIALS)} coverage plans out of fold")
        found = [self._cover(base, [(j, work)], available) for _, base, j, work in options[:COVERAGE_TRIALS]]
        found.sort(key=lambda c: c.loss)
        pairs = [(c, j) for c in found[:3] for j in range(len(self.members.names)) if j not in c.members]
        pairs.sort(key=lambda pair: self.fitter.score((*pair[0].members, pair[1])).loss)
        return found + [c for base, j in pairs[:_PAIRS] if (c := self._second(base, j, available)) is not None]

    def _option(self, base: Candidate, j: int, available: float) -> list[tuple[float, Subset, int, float]]:
        """(estimated loss, base, member, seconds of work) of gating member j, if its budget is worth a load."""
        work, needed = self.gated_work(base.whole, j, available), float(self.pricing.row_seconds[j].sum())
        if not 0 < work < needed:
            return []
        gain = self.fitter.score(base.whole).loss - self.fitter.score((*base.whole, j)).loss
        return [(base.loss - gain * (work / needed) ** 0.6, base.whole, j, work)]  # gates find the better rows first

    def gated_work(self, whole: Subset, j: int, available: float) -> float:
        """Seconds of work, over all copies, that member j may do after `whole`.

        0 where it is too little to be worth a load.
        """
        needed = float(self.pricing.row_seconds[j].sum())
        work = min(self._room(j, available - self.seconds(whole)), needed)
        return work if work >= LEAST_COVERAGE * needed else 0.0

    def _room(self, j: int, seconds: float) -> float:
        """Seconds of work of member j, over all its copies, that fit into so many seconds of a phase of its own."""
        copies = 1 if self.pricing.wide[j] else self.pricing.devices
        return max(0.0, (seconds * (1 - 1e-9) - float(self.pricing.load_seconds[j])) * copies)

    def _second(self, base: Candidate, j: int, available: float) -> Candidate | None:
        """Half of the gated member's seconds go to a second one, which reads the first."""
        first = next(iter(base.seen))
        half = float(self.pricing.row_seconds[first] @ base.seen[first]) / 2
        room = available - self.overhead - makespan(self.loads(base.whole, {}), self.pricing.devices)
        copies = 1 if self.pricing.wide[first] else self.pricing.devices
        left = room - float(self.pricing.load_seconds[first]) - half / copies
        work = min(self._room(j, left), float(self.pricing.row_seconds[j].sum()))
        if work < LEAST_COVERAGE * float(self.pricing.row_seconds[j].sum()):
            return None
        return self._cover(base.whole, [(first, half), (j, work)], available)

    def loads(self, whole: Sequence[int], seen: dict[int, np.ndarray]) -> list[Load]:
        """The jobs of a plan; see `Pricing.loads`."""
        return self.pricing.loads(whole, list(seen.items()))

    def _cover(self, whole: Subset, gated: Sequence[tuple[int, float]], available: float) -> Candidate:
        spec = self.judge(whole).spec
        if len(whole) == 1 or not spec.fitted:  # one member's table as it is says nothing of how to add another
            spec = self._pool
        covered = cover(self.evaluator, spec, self.members.characters, self.pricing.row_seconds, whole, gated)
        seconds = self.overhead + makespan(self.loads(whole, covered.seen), self.pricing.devices)
        if seconds > available:
            raise AssertionError(f"coverage plan of {seconds:.1f} s exceeds {available:.1f} s")
        return Candidate(whole, spec, seconds, covered.losses, covered.seen, covered.own_blend, dict(gated))

    @property
    def _pool(self) -> BlendSpec:
        """The fitted pool of the best judged set of several members; of one member the pools hardly differ."""
        several = [c for c in self._judged.values() if len(c.whole) > 1 and c.spec.fitted]
        return min(several, key=lambda c: c.loss).spec if several else self.specs[-1]


def recalibrated_truth(members: Members) -> np.ndarray:
    """Probabilities of the true label (members, rows) after recalibrating each member.

    Each is recalibrated by a logistic pool of itself alone.

    Subsets are compared on these, so that a member that is informative but overconfident is not passed over.
    """
    rows = np.arange(len(members.y))
    spec = DEFAULT_SPECS["logistic"]
    out = np.empty(members.p.shape[:2])
    for j, (name, table) in enumerate(zip(members.names, members.p, strict=True)):
        blend = fit_blend(spec, [name], table[None], members.y)
        out[j] = apply_blend(blend, named([name], table[None]))[rows, members.y]
    return out


def _with_bias(spec: BlendSpec, position_bias: bool) -> BlendSpec:
    return replace(spec, position_bias=position_bias and spec.pool != "linear")
