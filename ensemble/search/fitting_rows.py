"""What a plan keeps of its fitting rows, for later commands to compare theirs with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ensemble.members.texts import DIGEST, SCRIPT, bloom
from ensemble.plan import End, FittingRows
from ensemble.pools.blend import apply_blend, fit_blend
from ensemble.pools.crossfit import cross_fit, named
from ensemble.pools.features import row_features, summary_of
from ensemble.pools.trees import rows_of
from ensemble.search.problem import Candidate, Problem
from zoo.scores.metrics import log_loss_rows, mean_and_error

QUARTER = 0.25
ENDS_ROWS = 6_000  # nine fits of the chosen pool, which need not see more
_LEAST_SHARE = 0.25  # of the rows must be left to fit on without a quarter and its prompts


def describe_fit(problem: Problem, candidate: Candidate) -> FittingRows:
    """The fitting rows' features, what their ends cost, and a filter that knows them again."""
    members = problem.members
    features = row_features(members.p[list(candidate.whole)], members.characters)
    about = members.about
    texts = about is not None and DIGEST in about.columns
    return FittingRows(
        summary=summary_of(features, about[SCRIPT].tolist() if about is not None and texts else ()),
        ends=costs_of_ends(problem, candidate, features),
        known=bloom(about[DIGEST].to_numpy(dtype=np.uint64)) if about is not None and texts else "",
    )


def costs_of_ends(problem: Problem, candidate: Candidate, features: Mapping[str, np.ndarray]) -> tuple[End, ...]:
    """What the chosen pool loses on the ends of each feature when it is fitted without.

    An end is the lowest or the highest quarter. Against weights fitted by ordinary folds, on the same rows. Prompts of a
    quarter are left out whole. Of a pool that is not fitted there is nothing to say, nor of a quarter whose prompts have nearly
    all rows.
    """
    if not candidate.spec.fitted:
        return ()
    every = -(-len(problem.members.y) // ENDS_ROWS)
    few = np.arange(len(problem.members.y)) % every == 0
    members = problem.members if every == 1 else problem.members.rows(few)
    chosen = sorted(candidate.members)
    names, p, y, lengths = [members.names[j] for j in chosen], members.p[chosen], members.y, members.lengths
    usual = log_loss_rows(cross_fit(candidate.spec, names, p, y, members.folds, lengths=lengths), y)
    ends: list[End] = []
    for feature, everything in features.items():
        values = everything[few]
        low, high = np.quantile(values, [QUARTER, 1 - QUARTER])
        for end, rows in (("low", values <= low), ("high", values >= high)):
            others = ~np.isin(members.groups, members.groups[rows])
            if low == high or others.mean() < _LEAST_SHARE or len(np.unique(y[others])) < 2:
                continue
            blend = fit_blend(candidate.spec, names, p[:, others], y[others], rows_of(lengths, others))
            lost = log_loss_rows(apply_blend(blend, named(names, p[:, rows]), rows_of(lengths, rows)), y[rows])
            cost, error = mean_and_error(lost - usual[rows], members.groups[rows])
            if np.isfinite(error):
                ends.append(End(feature=feature, end=end, rows=int(rows.sum()), cost=cost, cost_se=error))
    return tuple(ends)
