"""Which members from elsewhere have seen the labels, look so, or may have.

One judgement for builds and the leaderboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.pipeline.members import Member, Table
from zoo.pipeline.truth import Truth
from zoo.scores.leaks import differs_elsewhere, in_sample, partly_leaked
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import PROBABILITIES, probabilities, without_ties

if TYPE_CHECKING:
    import pandas as pd


def suspicions(
    tables: Sequence[Table], frames: Sequence[pd.DataFrame], labels: pd.Series, groups: Mapping[str, int]
) -> dict[int, str]:
    """Tables from elsewhere that seem to have seen the labels, by place, with the reason.

    The zoo's own stages score rows that the model never saw, by construction, but for models that were trained elsewhere, of
    which the stage knows what was said; what a file claims has to be believed. Each
    is compared with each other member on the rows that both have. `frames`: the tables' usable and labelled rows by id;
    `labels` and `groups` (prompts) by id.
    """
    import pandas as pd

    truth = [labels.loc[frame.index].to_numpy(dtype=np.int64) for frame in frames]
    losses = [log_loss_rows(probabilities(frame), y) for frame, y in zip(frames, truth, strict=True)]
    by_id = [pd.Series(loss, index=frame.index) for loss, frame in zip(losses, frames, strict=True)]
    reasons = {}
    for j, table in enumerate(tables):
        if table.card.request is not None and table.card.suspect:
            reasons[j] = table.card.suspect
        if table.card.request is not None or not len(frames[j]):
            continue
        index = frames[j].index
        own_groups = np.array([groups[i] for i in index])
        others = [by_id[k] for k, other in enumerate(tables) if other.card.checkpoint != table.card.checkpoint]
        peers = []
        for other in others:
            places = np.flatnonzero(index.isin(other.index))
            peers.append((places, other.loc[index[places]].to_numpy()))
        shared = np.any([index.isin(other.index) for other in others], axis=0) if others else np.ones(len(index), dtype=bool)
        p = probabilities(frames[j])
        reason = (
            in_sample(p, truth[j], own_groups, peers)
            or differs_elsewhere(losses[j], own_groups, shared)
            or partly_leaked(p, truth[j])
        )
        if reason:
            reasons[j] = reason
    return reasons


def suspects_of_data(members: Sequence[Member], truth: Truth | None) -> dict[int, str]:
    """Of one data set's members those that a build would leave out, with the reason.

    By place. `truth`: as `truth_at_hand` finds it; where that is None, what was found when each was imported.
    """
    tables = [member.table for member in members]
    known = {j: table.card.suspect for j, table in enumerate(tables) if table.card.suspect}
    if truth is None or all(table.card.request is not None for table in tables):
        return known
    frames = [labelled_rows_of(table, truth.labels) for table in tables]
    if not truth.ties:
        frames = [without_tie_column(one) for one in frames]
    groups = dict(zip(truth.groups.index, truth.groups.tolist(), strict=True))
    return suspicions(tables, frames, truth.labels, groups)


def labelled_rows_of(table: Table, labels: pd.Series) -> pd.DataFrame:
    """Labelled rows scored without a fault, by id; out of fold where the table knows folds."""
    frame = table.usable
    return frame[frame["id"].isin(labels.index)].set_index("id")


def without_tie_column(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that say nothing of a tie: A and B alone, in the proportion that they had."""
    return frame.assign(**dict(zip(PROBABILITIES, without_ties(probabilities(frame)).T, strict=True)))
