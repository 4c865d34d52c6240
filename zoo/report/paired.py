"""Losses of score tables by row, and paired differences on the rows that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.pipeline.suspicion import labelled_rows_of
from zoo.pipeline.truth import Truth
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import probabilities, without_ties

if TYPE_CHECKING:
    import pandas as pd

    from zoo.pipeline.members import Table


@dataclass(frozen=True)
class Difference:
    """Mean of one member's log loss less another's, in nats, on the `rows` that both have.

    `error`: the standard error of that mean, by prompts (`zoo.scores.metrics.standard_error`); NaN where they are of one.
    """

    mean: float
    error: float
    rows: int

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.error:.4f}"


def losses_by_id(table: Table, truth: Truth) -> pd.Series:
    """Log loss in nats of a table's usable, labelled rows, by id."""
    import pandas as pd

    rows = labelled_rows_of(table, truth.labels)
    p = probabilities(rows) if truth.ties else without_ties(probabilities(rows))
    y = truth.labels.loc[rows.index].to_numpy(dtype="int64")
    return pd.Series(log_loss_rows(p, y), index=rows.index)


def common_ids(losses: Sequence[pd.Series]) -> pd.Index:
    """The ids that all of some tables have, in the order of the first."""
    first = losses[0].index
    for other in losses[1:]:
        first = first[first.isin(other.index)]
    return first


def difference(ours: pd.Series, theirs: pd.Series, truth: Truth) -> Difference | None:
    """Ours less theirs on the rows that both have; None where there are none."""
    ids = common_ids([ours, theirs])
    if not len(ids):
        return None
    rows = ours.loc[ids].to_numpy() - theirs.loc[ids].to_numpy()
    mean, error = mean_and_error(rows, truth.groups.loc[ids].to_numpy())
    return Difference(mean, error, len(ids))
