"""A chosen candidate becomes a plan: final fits, fallbacks, gates, schedule, and how it compares."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ensemble.baselines import baseline_losses
from ensemble.blend import BlendSpec, apply_blend, fit_blend
from ensemble.choose import Candidate, Chooser
from ensemble.coverage import divergence, fit_gate, pattern_rows
from ensemble.members import Members
from ensemble.nested import Nested, named, paired, standard_error
from ensemble.plan import Blend, Bound, FrontierPoint, Gate, Job, Plan, PlanMember, PlanTarget, Pool, Triple
from ensemble.schedule import place
from ensemble.subsets import Subset
from zoo.scores import log_loss_rows

FALLBACK_ROWS = 20_000  # fallback blends are fitted to at most this many rows
ALL_FALLBACKS = 6  # up to so many members every subset has a blend of its own
NESTED_ESTIMATE = (
    "nested folds chose the pool and fitted it without the rows they are judged on; the set of members was chosen on all rows"
)
COVERED_ESTIMATE = (
    "not nested: the pool was chosen by the other folds and weights and gates were fitted on them, but gates learnt from "
    "blends that knew the rows they are judged on, and members and their shares of the seconds were chosen on all rows; "
    "whole_file_oof_log_loss is judged the same way"
)


@dataclass(frozen=True)
class Choice:
    """What was chosen at a budget, what it was chosen from, and how far the search can be from the best.

    `whole_file`: the candidate itself, or what would be taken without coverage plans. `nested`: the candidate by nested folds,
    where it is a whole-file plan and that is known.
    """

    candidate: Candidate
    why: str
    whole_file: Candidate
    whole_why: str
    considered: tuple[Candidate, ...]
    bound: Bound
    nested: Nested | None = None


def write_down(
    chooser: Chooser, choice: Choice, *, target: PlanTarget, budget_seconds: float, margin: float, margin_reason: str
) -> Plan:
    """Fit everything that the chosen candidate needs at prediction, and judge it beside what others would do."""
    members, y = chooser.members, chooser.members.y
    candidate, losses, spec = choice.candidate, choice.candidate.losses, choice.candidate.spec
    whole_loss, estimate = choice.whole_file.loss, COVERED_ESTIMATE
    if not candidate.seen:
        judged = choice.nested or chooser.nested(candidate.whole)
        losses, spec, estimate = judged.losses, judged.spec, NESTED_ESTIMATE
        whole_loss = float(losses.mean())
    chooser.say("fitting blends and fallbacks")
    jobs = place(chooser.loads(candidate.whole, candidate.seen), chooser.pricing.devices, start_seconds=chooser.overhead)
    order = _run_order(chooser, candidate, jobs)
    pools = _Pools(chooser, candidate, spec, order).all()
    compared = _compared(chooser, budget_seconds / margin)
    return Plan(
        created_at=datetime.now(UTC),
        target=target,
        budget_seconds=budget_seconds,
        margin=margin,
        margin_reason=margin_reason,
        predicted_seconds=max(job.end_seconds for job in jobs),
        overhead_seconds=chooser.overhead,
        rows=chooser.pricing.rows,
        dataset_digest=members.digest,
        fitted_rows=len(y),
        lost_rows=members.lost_rows,
        oof_log_loss=float(losses.mean()),
        oof_log_loss_se=standard_error(losses, members.groups),
        prior=_prior(y),
        parsimony=choice.why,
        paired=tuple(paired(name, losses, other, members.groups) for name, other in compared.items()),
        baselines={name: float(other.mean()) for name, other in compared.items()} | {"uniform": float(np.log(3))},
        whole_file_oof_log_loss=whole_loss,
        estimate=estimate,
        bound=choice.bound,
        members=tuple(_plan_member(chooser, candidate, j, order, pools) for j in order),
        pools=tuple(pools),
        schedule=jobs,
        frontier=frontier_points(choice.considered, members, margin),
        left_out=members.left_out,
    )


def frontier_points(candidates: Sequence[Candidate], members: Members, margin: float) -> tuple[FrontierPoint, ...]:
    """Of judged candidates, those that no cheaper one beats, the cheapest first."""
    points: list[FrontierPoint] = []
    best = np.inf
    for candidate in sorted(candidates, key=lambda c: (c.seconds, c.loss)):
        if candidate.loss < best:
            best = candidate.loss
            coverage = [1.0] * len(candidate.whole) + [float(mask.mean()) for mask in candidate.seen.values()]
            points.append(
                FrontierPoint(
                    budget_seconds=candidate.seconds * margin,
                    predicted_seconds=candidate.seconds,
                    oof_log_loss=candidate.loss,
                    oof_log_loss_se=standard_error(candidate.losses, members.groups),
                    members=tuple(members.names[j] for j in candidate.members),
                    coverage=tuple(coverage),
                )
            )
    return tuple(points)


def _compared(chooser: Chooser, available: float) -> dict[str, np.ndarray]:
    """Losses (rows,) of what others would do with all candidates that are affordable alone.

    The best single member is the best on all rows, as its table is: choosing it by other folds would flatter the plan.
    """
    members = chooser.members
    affordable = [j for j in range(len(members.names)) if chooser.seconds((j,)) <= available]
    p = members.p[affordable]
    losses = baseline_losses([members.names[j] for j in affordable], p, members.y, members.folds)
    singles = (log_loss_rows(table, members.y) for table in p)
    return losses | {"best_single": min(singles, key=lambda rows: float(rows.mean()))}


def _prior(y: np.ndarray) -> Triple:
    """Label shares with one battle of each label added, A and B alike since their order is random."""
    counts = np.bincount(y, minlength=3) + 1.0
    side = float((counts[0] + counts[1]) / 2 / counts.sum())
    return side, side, 1.0 - 2 * side


def _run_order(chooser: Chooser, candidate: Candidate, jobs: Sequence[Job]) -> Subset:
    """Members by the start of their first job; of one job, the one with the most nats a second first."""
    start = {name: min(job.start_seconds for job in jobs if name in job.members) for job in jobs for name in job.members}
    phase = {name: job.phase for job in jobs for name in job.members}
    value = {j: chooser.fitter.score((j,)).loss for j in candidate.members}
    names = chooser.members.names
    return tuple(sorted(candidate.members, key=lambda j: (phase[names[j]], start[names[j]], value[j])))


class _Pools:
    """Blends of a plan: of all members, of each coverage pattern, and of what may be left when members fail or are late."""

    def __init__(self, chooser: Chooser, candidate: Candidate, spec: BlendSpec, order: Subset) -> None:
        self.chooser, self.candidate, self.spec, self.order = chooser, candidate, spec, order

    def all(self) -> list[Pool]:
        members = self.chooser.members
        patterns = pattern_rows(self.candidate.whole, self.candidate.seen, len(members.y))
        pools = [
            self._pool(pattern, rows, planned=True) for pattern, rows in patterns.items() if pattern in self.candidate.own_blend
        ]
        needed = {tuple(sorted(self.order)), *patterns, *(tuple(sorted(self.order[:k])) for k in range(1, len(self.order) + 1))}
        few = np.arange(len(members.y)) % -(-len(members.y) // FALLBACK_ROWS) == 0
        everything = np.ones(len(members.y), dtype=bool)
        gated = list(self.candidate.seen)
        reached = [(*self.candidate.whole, *s) for size in range(len(gated) + 1) for s in itertools.combinations(gated, size)]
        for key in dict.fromkeys(tuple(sorted(subset)) for subset in [*fallback_subsets(self.order), *reached]):
            pools.append(self._pool(key, everything if key in needed else few, planned=False))
        return pools

    def _pool(self, subset: Subset, rows: np.ndarray, *, planned: bool) -> Pool:
        members = self.chooser.members
        ordered = [j for j in self.order if j in subset]
        names, p, y = [members.names[j] for j in ordered], members.p[ordered][:, rows], members.y[rows]
        blend = fit_blend(self.spec, names, p, y)
        losses = log_loss_rows(apply_blend(blend, named(names, p)), y)
        share = float(rows.mean()) if planned else 1.0
        return Pool(members=tuple(names), planned=planned, blend=blend, rows_fraction=share, log_loss=float(losses.mean()))


def fallback_subsets(order: Subset) -> list[Subset]:
    """Sets of members that need a blend of their own: all if few, else prefixes, leave-one-out, singles."""
    if len(order) <= ALL_FALLBACKS:
        return [s for size in range(len(order), 0, -1) for s in itertools.combinations(order, size)]
    prefixes = [order[:k] for k in range(len(order), 0, -1)]
    without_one = [tuple(j for j in order if j != left) for left in order]
    return list(dict.fromkeys([*prefixes, *without_one, *((j,) for j in order)]))


def _plan_member(chooser: Chooser, candidate: Candidate, j: int, order: Subset, pools: Sequence[Pool]) -> PlanMember:
    members, pricing, card = chooser.members, chooser.pricing, chooser.members.cards[j]
    full = next(pool.blend for pool in pools if len(pool.members) == len(order) and not pool.planned)
    seen = candidate.seen.get(j)
    work = float(pricing.row_seconds[j] @ (np.ones(len(members.y)) if seen is None else seen))
    return PlanMember(
        name=card.member,
        entry=card.entry,
        variant=card.variant,
        weight=full.weights[full.members.index(card.member)] / max(sum(full.weights), 1e-12),
        coverage=1.0 if seen is None else float(seen.mean()),
        predicted_seconds=float(pricing.load_seconds[j]) + work,
        oof_log_loss=float(log_loss_rows(members.p[j], members.y).mean()),
        checkpoint=card.checkpoint,
        cost=card.cost,
        tokens=pricing.estimates[j],
        mean_row_tokens=float(pricing.mean_tokens[j]),
        gate=None if seen is None else _gate(chooser, candidate, j, pools),
        request=without_paths(card.request),
    )


def without_paths(value: Any) -> Any:
    """A request whose inputs keep their fingerprints only: where they lay on the builder's machine is nobody else's concern."""
    if isinstance(value, dict):
        blank = {"path": ""} if value.keys() == {"path", "fingerprint"} else {}
        return {key: without_paths(item) for key, item in value.items()} | blank
    return [without_paths(item) for item in value] if isinstance(value, list | tuple) else value


def _gate(chooser: Chooser, candidate: Candidate, j: int, pools: Sequence[Pool]) -> Gate:
    """The gate of member j, fitted to all rows by the blends of all rows that `ensemble predict` will feed it."""
    members = chooser.members
    gated = list(candidate.seen)
    before = {k: candidate.seen[k] for k in gated[: gated.index(j)]}
    blends: dict[frozenset[str], Blend] = {frozenset(pool.members): pool.blend for pool in pools if not pool.planned}
    p, gain = np.empty((len(members.y), 3)), np.empty(len(members.y))
    for pattern, rows in pattern_rows(candidate.whole, before, len(members.y)).items():
        names = [members.names[k] for k in (*pattern, j)]
        tables = named(names, members.p[[*pattern, j]][:, rows])
        p[rows] = apply_blend(blends[frozenset(names[:-1])], tables)
        gain[rows] = divergence(apply_blend(blends[frozenset(names)], tables), p[rows])
    given = tuple(members.names[k] for k in (*candidate.whole, *before))
    return fit_gate(given, p, members.characters, gain)
