"""Members to leave out before rows are joined: in-sample scores and duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ensemble.members.rows import FEWEST_ROWS, HARMLESS
from zoo.contracts import Cost
from zoo.cost.fit import row_seconds
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.pipeline.suspicion import suspicions
from zoo.scores.tables import probabilities

SAME_TABLE = 1e-9


def suspects(
    tables: Sequence[Table], frames: Sequence[pd.DataFrame], labels: pd.Series, groups: Mapping[str, int], asked: Sequence[str]
) -> dict[int, str]:
    """Tables from elsewhere that seem to have seen the labels, by place, with the reason.

    Those that `zoo.pipeline.suspicion.suspicions` finds, less those asked for. ZooError where none would be left.
    """
    found = suspicions(tables, frames, labels, groups)
    reasons = {j: reason for j, reason in found.items() if tables[j].name not in asked}
    if reasons and len(reasons) == len(tables):
        raise ZooError("; ".join(f"{tables[j].name} {r}" for j, r in reasons.items()) + "; ask for one with --include NAME")
    return {j: f"{reason}; --include asks for it" for j, reason in reasons.items()}


def duplicates(tables: Sequence[Table], frames: Sequence[pd.DataFrame]) -> dict[int, str]:
    """Of members with the same table all but the cheapest, by place, with the reason.

    They would add nothing to it.

    Tables are compared on the rows that both have. One that lacks rows of its twin does not stand in for it, however cheap.
    """
    work = [_mean_work(table.card.cost, frame) for table, frame in zip(tables, frames, strict=True)]
    kept: list[int] = []
    reasons: dict[int, str] = {}
    for j in sorted(range(len(tables)), key=lambda j: (work[j], tables[j].name)):
        twin = next((k for k in kept if _same(frames[k], frames[j])), None)
        if twin is None:
            kept.append(j)
        elif len(frames[twin]) >= (1 - HARMLESS) * len(frames[j]):
            reasons[j] = f"same table as {tables[twin].name}, which costs no more"
        else:
            kept[kept.index(twin)] = j
            reasons[twin] = (
                f"same table as {tables[j].name}, which has {len(frames[j]):,} rows where this has {len(frames[twin]):,}"
            )
    return reasons


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    shared = one.index.intersection(other.index)
    if len(shared) < min(FEWEST_ROWS, len(one), len(other)):
        return False
    return bool(np.abs(probabilities(one.loc[shared]) - probabilities(other.loc[shared])).max(initial=0.0) <= SAME_TABLE)


def _mean_work(cost: Cost, frame: pd.DataFrame) -> float:
    """Seconds of loading and of one mean row, over all of one copy's devices."""
    tokens = frame["n_tokens"].to_numpy()
    return cost.load_seconds + (float(row_seconds(cost, tokens).sum()) * max(1, cost.gpus) if len(tokens) else 0.0)
