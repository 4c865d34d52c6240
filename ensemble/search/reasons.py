"""Why these members: what the plan would be with one more, one less, or one exchanged.

Each change is judged as candidates are: out of fold, by the same folds and one pool on both sides, the difference row by row.
Members that a gate sends to some rows keep these rows. Choosing is not repeated: what a search would have done without the
member is the rehearsal's kind of question, and takes its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from ensemble.members.table import Members
from ensemble.plan import ROUNDING, Change, ErrorCorrelation, MemberReason, Reasons
from ensemble.pools.blend import RIDGED_LOG, RIDGED_LOGISTIC, BlendSpec
from ensemble.pools.crossfit import cross_fit
from ensemble.search.contest import FEW_LABELS
from ensemble.search.coverage import pattern_rows
from ensemble.search.judging import QUICK_ROWS
from ensemble.search.prices import Budget
from ensemble.search.problem import FEW_ROWS, Candidate, Problem
from ensemble.search.rehearse import rehearsed_folds
from ensemble.search.subsets import Subset
from zoo.scores.metrics import log_loss_rows, mean_and_error

QUICK_POOLS = ("linear", "log", "logistic")  # a plan's slower pool is stood in for by a ridged one
# What all fits may take: (members + EACH_FIT) * (rows + EACH_MEMBER * members) of each set. In all 0.9 s (8 members, 20,000
# rows) to 3 s (100 members, 2,000 rows) of one core of a 2.8 GHz Xeon, 2026-11-26.
WORK = 6_000_000
EACH_FIT, EACH_MEMBER = 4, 25
LEAST_ROWS = 2_000  # with fewer the wide pools say more of themselves than of a member; the weakest members go unjudged instead
MOST_ERRORS = 24  # members whose errors are compared: a picture of more cannot be read
CHANCE = 0.05  # that any change is called sure though none changes anything
FLOOR = 0.01  # of the uniform triple in tables whose errors are compared: one zero would outweigh all other rows


@dataclass(frozen=True)
class _Changed:
    """A plan with member `j` on every row, without it, or with it in the place of `left`; with everyone: no such member."""

    j: int | None
    kind: Literal["with", "without", "exchanged"]
    whole: Subset
    seen: dict[int, np.ndarray]
    left: int | None = None

    def work(self, rows: int) -> np.ndarray:
        """Of WORK, what each row of its fits takes, and what they take besides."""
        sizes = np.array([len(pattern) for pattern in pattern_rows(self.whole, self.seen, rows)])
        return np.array([(sizes + EACH_FIT).sum(), EACH_MEMBER * (sizes * (sizes + EACH_FIT)).sum()])


def reasons_of(problem: Problem, candidate: Candidate, order: Subset, budget: Budget) -> Reasons:
    """Why the members of `candidate`, which run in this `order`, are in and all others not."""
    problem.say("judging what each member is worth")
    members = problem.members
    alone = log_loss_rows(members.p.reshape(-1, 3), np.tile(members.y, len(members.names))).reshape(len(members.names), -1)
    alone_means = alone.mean(axis=1)
    changes = [*_changes(problem, candidate), *_exchanges(problem, candidate, budget)]
    changed, rows, divisions = _within_work(members, candidate, changes, alone_means)
    keep = np.zeros(len(members.y), dtype=bool)
    keep[np.linspace(0, len(members.y) - 1, rows).astype(int)] = True
    few = problem.on_rows(keep) if rows < len(members.y) else problem
    judge = _Judge(few.members, _pool_beside(problem, candidate.spec), rehearsed_folds(few)[:divisions])
    recalibrated = replace(judge, spec=problem.of_kind(RIDGED_LOG), known={})
    plan_losses = judge.losses(candidate.whole, _on(candidate.seen, keep))
    found: dict[tuple[int | None, str], Change] = {}
    left = {one.j: members.names[one.left] for one in changed if one.left is not None}
    for one in changed:
        difference = judge.losses(one.whole, _on(one.seen, keep)) - plan_losses
        alike = 1 if one.j is None else sum(other.kind == one.kind and other.j is not None for other in changed)
        found[one.j, one.kind] = _change(problem, candidate, one, budget, mean_and_error(difference, few.members.groups), alike)
    reasons = [
        MemberReason(
            name=members.names[j],
            oof_log_loss=float(alone_means[j]),
            recalibrated_log_loss=float(recalibrated.losses((j,), {}).mean()),
            with_it=found.get((j, "with")),
            without_it=found.get((j, "without")),
            in_place_of=left.get(j),
            exchanged=found.get((j, "exchanged")),
        )
        for j in range(len(members.names))
    ]
    others = [j for j in range(len(reasons)) if j not in candidate.members]
    others.sort(key=lambda j: (change.log_loss if (change := reasons[j].with_it) else np.inf, alone_means[j]))
    own = judge.spec == candidate.spec
    pool = f"the plan's own {judge.spec.pool} pool" if own else f"a ridged {judge.spec.pool} pool, in place of the plan's own"
    ordered = tuple(reasons[j] for j in (*order, *others))
    return Reasons(pool=pool, rows=rows, members=ordered, everyone=found.get((None, "with")))


def error_correlation(members: Members, first: Sequence[int]) -> ErrorCorrelation:
    """How alike members err on all rows.

    Those at `first`, then the best alone of the others, MOST_ERRORS at most.
    """
    even = np.array([1 / 3, 1 / 3, 1 / 3] if members.ties else [0.5, 0.5, 0.0])
    losses = np.stack([log_loss_rows((1 - FLOOR) * p + FLOOR * even, members.y) for p in members.p])
    others = sorted(set(range(len(losses))) - set(first), key=lambda j: float(losses[j].mean()))
    chosen = [*first, *others][:MOST_ERRORS]
    centred = losses[chosen] - losses[chosen].mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    shaped = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    correlation = np.clip(shaped @ shaped.T, -1, 1)
    np.fill_diagonal(correlation, 1.0)
    likeliest = members.p[chosen].argmax(axis=2)
    disagreement = np.stack([(likeliest != one).mean(axis=1) for one in likeliest])
    return ErrorCorrelation(
        members=tuple(members.names[j] for j in chosen), correlation=_rounded(correlation), disagreement=_rounded(disagreement)
    )


def _rounded(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.round(3).tolist())


def _pool_beside(problem: Problem, spec: BlendSpec) -> BlendSpec:
    """The pool that judges: the plan's own, unless it fits nothing, so that who is added says little, or is slow."""
    if spec.fitted and spec.pool in QUICK_POOLS:
        return spec
    return problem.of_kind(RIDGED_LOG if len(problem.members.y) < FEW_LABELS else RIDGED_LOGISTIC)


def _changes(problem: Problem, candidate: Candidate) -> list[_Changed]:
    """The plan with everyone, every plan with one member more on all rows, or with one less."""
    everyone = tuple(range(len(problem.members.names)))
    changed = [] if candidate.whole == everyone else [_Changed(None, "with", everyone, {})]
    for j in range(len(problem.members.names)):
        seen = {k: rows for k, rows in candidate.seen.items() if k != j}
        if j not in candidate.whole:
            changed.append(_Changed(j, "with", tuple(sorted((*candidate.whole, j))), seen))
        if j in candidate.members and len(candidate.members) > 1:
            changed.append(_Changed(j, "without", tuple(k for k in candidate.whole if k != j), seen))
    return changed


def _exchanges(problem: Problem, candidate: Candidate, budget: Budget) -> list[_Changed]:
    """For each member that does not fit beside the plan: the plan with it in the place of one that leaves it room.

    Of these the one that has the least weight in the linear pool of the plan's members and it, on QUICK_ROWS rows or so: what
    it says too goes to it, so that it replaces whom it resembles.
    """
    room = budget.available * (1 + ROUNDING)
    rows = np.arange(len(problem.members.y))
    few = problem.on_rows(rows % -(-len(rows) // QUICK_ROWS) == 0)

    def exchanged(j: int, left: int) -> _Changed:
        seen = {k: mask for k, mask in candidate.seen.items() if k != left}
        return _Changed(j, "exchanged", tuple(sorted((*(k for k in candidate.whole if k != left), j))), seen, left)

    found = []
    for j in sorted(set(range(len(problem.members.names))) - set(candidate.members)):
        if problem.prices.seconds((*candidate.whole, j), candidate.seen) <= room:
            continue
        options = [exchanged(j, left) for left in candidate.members]
        options = [one for one in options if problem.prices.seconds(one.whole, one.seen) <= room]
        if options:
            weights = few.fitter.score((*candidate.members, j)).weights
            found.append(min(options, key=lambda one: float(weights[one.left])))
    return found


def _within_work(
    members: Members, candidate: Candidate, changed: Sequence[_Changed], alone: np.ndarray
) -> tuple[list[_Changed], int, int]:
    """The changes that WORK allows to judge, on how many rows, and by how many divisions into folds.

    Rows go first, down to LEAST_ROWS; then exchanges, and the changes by members that are the worst alone.
    """
    n, needs = len(members.y), {(one.j, one.kind): one.work(len(members.y)) for one in changed}
    fixed = _Changed(None, "with", candidate.whole, candidate.seen).work(n) + len(members.names) * np.array([1 + EACH_FIT, 0])
    each_row, besides = fixed + sum(needs.values(), np.zeros(2))
    rows = min(n, FEW_ROWS, max(LEAST_ROWS, int((WORK - besides) / each_row)))
    kept, spent = [], fixed
    for one in sorted(changed, key=lambda one: (one.left is not None, -np.inf if one.j is None else float(alone[one.j]))):
        spent = spent + needs[one.j, one.kind]
        if spent @ (rows, 1) <= WORK:
            kept.append(one)
    return kept, rows, max(1, int(WORK / (each_row * rows + besides)))


def _change(
    problem: Problem, candidate: Candidate, one: _Changed, budget: Budget, judged: tuple[float, float], alike: int
) -> Change:
    """What a change came out at; `alike`: how many of its kind are judged, one of which chance favours most."""
    difference, error = judged
    beyond = NormalDist().inv_cdf(1 - CHANCE / 2 / alike)
    prices = problem.prices
    seconds = prices.seconds(one.whole, one.seen)
    more = prices.likely.seconds(one.whole, one.seen) - prices.likely.seconds(candidate.whole, candidate.seen)
    return Change(
        log_loss=difference,
        standard_error=error,
        sure=abs(difference) > max(beyond * error, ROUNDING),
        seconds=more,
        budget_seconds=seconds * budget.margin,
        fits=seconds <= budget.available * (1 + ROUNDING),
    )


def _on(seen: Mapping[int, np.ndarray], keep: np.ndarray) -> dict[int, np.ndarray]:
    return {j: rows[keep] for j, rows in seen.items()}


@dataclass(frozen=True)
class _Judge:
    """Losses of sets of members out of fold by one pool, each fitted once.

    `divisions` (repeats, rows): folds; losses are means over repeats.
    """

    members: Members
    spec: BlendSpec
    divisions: np.ndarray
    known: dict[Subset, np.ndarray] = field(default_factory=dict)

    def losses(self, whole: Subset, seen: Mapping[int, np.ndarray]) -> np.ndarray:
        """Losses (rows,) where `whole` see every row and others those of `seen`; rows of nobody get the labels' shares."""
        out = np.empty(len(self.members.y))
        for pattern, rows in pattern_rows(whole, dict(seen), len(out)).items():
            out[rows] = self._of(pattern)[rows]
        return out

    def _of(self, pattern: Subset) -> np.ndarray:
        if pattern not in self.known:
            members, chosen = self.members, list(pattern)
            names, p = [members.names[j] for j in chosen], members.p[chosen]
            tables = (
                [cross_fit(self.spec, names, p, members.y, folds) for folds in self.divisions]
                if chosen
                else [np.tile(members.prior, (len(members.y), 1))]
            )
            self.known[pattern] = np.mean([log_loss_rows(table, members.y) for table in tables], axis=0)
        return self.known[pattern]
