"""How far the rows that are predicted are from those that the plan's promise comes from.

It is said in one line, with what such a distance cost in rehearsal where that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble.plan import FittingRows, Plan, RowSummary
from ensemble.pools.features import Distance, distances, row_features

FEWEST_ROWS = 20  # fewer say nothing of a distribution
_SHOWN = 3


def promised_on(plan: Plan) -> tuple[RowSummary, str] | None:
    """The rows that the plan's promised log loss is of, and what they are called.

    None where a plan does not say.
    """
    if plan.calibration is not None:
        return plan.calibration.summary, f"the {plan.calibration.rows:,} rows of {plan.calibration.battles}"
    if plan.fitting is not None:
        return plan.fitting.summary, f"the {plan.fitted_rows:,} fitting rows"
    return None


def compare(
    plan: Plan,
    tables: Mapping[str, np.ndarray],
    has: Mapping[str, np.ndarray],
    characters: np.ndarray,
    scripts: Sequence[str] = (),
) -> list[Distance]:
    """Distances of a file's rows from those of the plan's promise, the farthest first.

    Empty where nothing can be said. `tables`: triples (rows, 3) by member, `has`: the rows that each has scored, bool (rows,);
    `characters` (rows,), zero for rows that cannot be read; `scripts`: of the rows that can. What members say is compared where
    all that see every row of the plan's file have scored.
    """
    promised = promised_on(plan)
    if promised is None:
        return []
    names = [member.name for member in plan.members if member.gate is None]
    whole = np.all([has[name] for name in names], axis=0)
    rows = whole if whole.sum() >= FEWEST_ROWS else characters > 0
    if rows.sum() < FEWEST_ROWS:
        return []
    if whole.sum() >= FEWEST_ROWS:
        features = row_features(np.stack([tables[name][rows] for name in names]), characters[rows])
    else:
        features = {"characters": characters[rows]}
    return distances(promised[0], features, scripts)


def told_of_distance(plan: Plan, found: Sequence[Distance]) -> str:
    """The line for people; empty where nothing was compared."""
    promised = promised_on(plan)
    if promised is None or not found:
        return ""
    far = [one for one in found if one.ks > one.noise]
    if not far:
        return f"these rows are like {promised[1]}: no feature is further from theirs than chance takes it"
    shown = ", ".join(one.words for one in far[:_SHOWN])
    return f"these rows against {promised[1]}, 0 alike and 1 apart: {shown}; {_cost(plan, far[0])}"


def _cost(plan: Plan, farthest: Distance) -> str:
    """What rows like these cost in rehearsal: by the groups that were left out, else by the quarter at that end."""
    if plan.calibration is not None:
        return "what that costs was not rehearsed"
    if plan.robust is not None:
        worst = max(plan.robust.groups, key=lambda group: group.log_loss)
        return (
            f"built without {plan.robust.column} {worst.name}, the plan lost {worst.log_loss:.4f} on it, the most of "
            f"{len(plan.robust.groups)} groups"
        )
    return _cost_of_end(plan.fitting, farthest)


def _cost_of_end(fitting: FittingRows | None, farthest: Distance) -> str:
    side = "high" if farthest.higher else "low"
    for end in fitting.ends if fitting is not None else ():
        if (end.feature, end.end) == (farthest.feature, side):
            return (
                f"weights fitted without the {end.rows:,} fitting rows at that end lost {end.cost:+.4f} ± {end.cost_se:.4f} "
                "there; what the members themselves lose is not in that"
            )
    return "what that costs was not rehearsed; --robust COLUMN would"
