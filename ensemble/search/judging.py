"""Judge candidate plans by their out-of-fold log loss.

A quick in-sample look ranks many sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ensemble.pools.blend import BlendSpec, apply_blend, fit_blend
from ensemble.pools.crossfit import choose_losses, named
from ensemble.search.coverage import cover
from ensemble.search.problem import Candidate, Problem
from ensemble.search.subsets import Subset
from zoo.scores.metrics import log_loss_rows

QUICK_ROWS = 6_000


def judge(problem: Problem, subset: Subset) -> Candidate:
    """The whole-file candidate of a set of members, with its losses out of fold.

    Each fold's pool is the one that the other folds prefer.
    """
    key = tuple(sorted(subset))
    if key not in problem.judged:
        losses, spec = problem.evaluator.losses(key, problem.specs)
        problem.judged[key] = Candidate(key, spec, problem.prices.seconds(key), losses)
    return problem.judged[key]


def judge_gated(problem: Problem, whole: Subset, spec: BlendSpec, work: Mapping[int, float]) -> Candidate:
    """The coverage candidate of a set and gated members, judged by one given pool.

    Each member of `work` spends its seconds on its best rows. One whose seconds are enough for every row needs no gate: it is
    one of the members that see the whole file.
    """
    row_seconds = problem.prices.pricing.row_seconds
    covered = cover(problem.evaluator, spec, problem.members.characters, row_seconds, whole, list(work.items()))
    seen = {j: rows for j, rows in covered.seen.items() if not rows.all()}
    whole = tuple(sorted((*whole, *(set(covered.seen) - set(seen)))))
    seconds = problem.prices.seconds(whole, seen)
    return Candidate(whole, spec, seconds, covered.losses, seen, covered.own_blend, {j: work[j] for j in seen})


def judge_gated_by_folds(problem: Problem, candidate: Candidate) -> Candidate:
    """A coverage candidate judged as `judge` does a whole-file one.

    Each fold's pool is the one that the other folds prefer. A search compares coverage plans by one pool, chosen on all rows,
    which flatters them beside whole-file plans.
    """
    judged = [
        candidate if spec == candidate.spec else judge_gated(problem, candidate.whole, spec, candidate.work)
        for spec in problem.specs
    ]
    losses, best = choose_losses(np.stack([c.losses for c in judged]), problem.members.folds)
    return replace(judged[best], losses=losses)


def quick_loss(problem: Problem, subset: Subset, spec: BlendSpec) -> float:
    """In-sample log loss on QUICK_ROWS rows or so: enough to rank sets for a closer look."""
    key = (subset, spec)
    if key not in problem.quick:
        members = problem.members
        few = slice(None, None, -(-len(members.y) // QUICK_ROWS))
        names, p = [members.names[j] for j in subset], members.p[list(subset)][:, few]
        blend = fit_blend(spec, names, p, members.y[few])
        problem.quick[key] = float(log_loss_rows(apply_blend(blend, named(names, p)), members.y[few]).mean())
    return problem.quick[key]


def best_pool(problem: Problem) -> BlendSpec:
    """The fitted pool of the best judged set of several members.

    Of one member the pools hardly differ.
    """
    several = [c for c in problem.judged.values() if len(c.whole) > 1 and c.spec.fitted]
    return min(several, key=lambda c: c.loss).spec if several else problem.specs[-1]
