"""Candidates whose strength is chosen by folds.

They are shrunken log pools, second-order pools, boosted trees and geometric means of the last two. They are of all affordable
members or of the set that the search found, whichever their folds prefer, and are judged like every other candidate by the
rehearsal, which makes these choices anew without each fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensemble.pools.blend import RIDGED_LOGISTIC, BlendSpec
from ensemble.pools.rounds import choose_rounds
from ensemble.search.problem import NOT_JUDGED, Candidate, Problem
from ensemble.search.subsets import Subset
from zoo.scores.metrics import log_loss_rows

SHRUNK_LOG, SECOND_ORDER, TREES, GEOMETRIC = "shrunk_log_pool", "second_order_pool", "boosted_trees", "geometric_mean"
TREE_ROWS = 5_000  # with fewer labelled rows trees are not tried
SHRUNK_SPECS = tuple(
    BlendSpec("log", shrinkage, floor=floor, center=center)
    for floor in (1e-2, 5e-2)
    for shrinkage in (0.01, 0.1, 1.0)
    for center in (1.0, 0.0)
)
SECOND_ORDER_SPECS = tuple(BlendSpec("second_order", 0.01, floor=1e-2, products=times) for times in (1.0, 5.0, 30.0))
WEIGHTS = np.linspace(0.1, 0.9, 9)  # of the second part of a geometric mean


def candidates_by_folds(problem: Problem, sets: Sequence[Subset]) -> dict[str, Candidate]:
    """Candidates by name, the simplest first, none of them judged.

    Each is of one of the `sets`, which fit the budget.
    """
    few = problem.thinned()
    sets = list(dict.fromkeys(sets))
    found = {SHRUNK_LOG: _best(few, sets, SHRUNK_SPECS), SECOND_ORDER: _best(few, sets, SECOND_ORDER_SPECS)}
    if problem.has_trees:
        found |= _with_trees(few, *found[SECOND_ORDER])
    return {name: Candidate(subset, spec, problem.prices.seconds(subset), NOT_JUDGED) for name, (subset, spec) in found.items()}


def _best(problem: Problem, sets: Sequence[Subset], specs: Sequence[BlendSpec]) -> tuple[Subset, BlendSpec]:
    """The set and the pool of least log loss out of fold."""
    options = [(subset, problem.of_kind(spec)) for subset in sets for spec in specs]
    return min(options, key=lambda option: _loss(problem, problem.evaluator.oof(*option)))


def _with_trees(problem: Problem, subset: Subset, second: BlendSpec) -> dict[str, tuple[Subset, BlendSpec]]:
    """Trees that correct the logistic pool of the second-order pool's members, and the geometric mean of both.

    They read the texts' lengths where the battles have texts.
    """
    members, base = problem.members, problem.of_kind(RIDGED_LOGISTIC)
    names, p = [members.names[j] for j in subset], members.p[list(subset)]
    rounds, boosted = choose_rounds(base, names, p, members.y, members.folds, members.lengths)
    trees = BlendSpec("trees", parts=(base,), tree_rounds=rounds, ties=base.ties, position_bias=base.position_bias)
    logs = [np.log(np.maximum(table, 1e-15)) for table in (problem.evaluator.oof(subset, second), boosted)]
    losses = [_loss(problem, np.exp((1 - w) * logs[0] + w * logs[1])) for w in WEIGHTS]
    weight = float(WEIGHTS[int(np.argmin(losses))])
    mean = replace(trees, pool="geometric", parts=(second, trees), part_weights=(1 - weight, weight), tree_rounds=(0, 0))
    return {TREES: (subset, trees), GEOMETRIC: (subset, mean)}


def _loss(problem: Problem, triples: np.ndarray) -> float:
    scaled = triples / triples.sum(axis=1, keepdims=True)
    return float(log_loss_rows(scaled, problem.members.y).mean())
