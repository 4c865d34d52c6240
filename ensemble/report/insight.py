"""Insight into a plan: its weak slices, how its members agree, and who else would help."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ensemble.plan import Plan
from ensemble.report.at_hand import FittedRows, rows_text
from zoo.data.splits import prompt_groups
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.report.insight import Insight, better, insight_of
from zoo.report.insight_rows import LABEL, InsightRows
from zoo.scores.metrics import log_loss_rows
from zoo.scores.parts import PartGain, agreement, part_gains
from zoo.scores.tables import probabilities, without_ties


def plan_insight(plan: Plan, found: FittedRows, others: Sequence[Table], name: str) -> Insight:
    """The insight into a plan, on the rows that it was fitted on. `name`: what people call it.

    `others`: tables of the same data, to see who would help.

    ZooError where the battles have no texts.
    """
    if not found.battles.has_texts:
        raise ZooError(f"{found.battles.path}: has winners alone; insight needs the prompts and answers of the battles")
    rows = _rows(plan, found)
    gains = _beside(plan, others, rows)
    note = (
        f"{rows_text(found)} Out of fold, with the fitting, the plan has {plan.oof_log_loss:.4f} ± {plan.oof_log_loss_se:.4f}."
    )
    if plan.calibration is not None:
        note += f" Without the plan's calibration, which is for battles like {plan.calibration.battles}."
    pairs = combinations(found.members, 2)
    return insight_of(
        name,
        found.battles.path.name,
        plan.dataset_digest,
        rows,
        note=note,
        members=found.members,
        agreements=[agreement((a, b), (found.members[a], found.members[b]), rows.y, rows.groups) for a, b in pairs],
        helpers=better(gains),
        others=tuple(table.name for table in others),
        looked_at=len(gains),
    )


def _rows(plan: Plan, found: FittedRows) -> InsightRows:
    rule = next((table.card.fold_rule for table in found.tables.values() if table.says_its_rule), None)
    groups = dict(zip(found.battles.frame["id"], prompt_groups(found.battles.frame, rule).tolist(), strict=True))
    cut = np.zeros(len(found.frame), dtype=bool)
    for table in found.tables.values():
        cut |= (table.usable.set_index("id").loc[found.frame["id"], "n_truncated_tokens"] > 0).to_numpy()
    own = np.array([groups[row_id] for row_id in found.frame["id"]])
    return InsightRows(found.frame, found.blend, own, cut, plan.ties)


def _beside(plan: Plan, others: Sequence[Table], rows: InsightRows) -> list[PartGain]:
    """Every other member beside the plan in each slice.

    Not in slices of a label: nobody knows it beforehand, and whoever predicts it more often has less loss there.
    """
    gains: list[PartGain] = []
    parts = [part for part in rows.parts if part.kind != LABEL]
    for table in others:
        frame = table.usable.set_index("id")
        p = probabilities(frame.reindex(rows.frame["id"]))
        theirs = np.full(len(p), np.nan)
        known = np.isfinite(p).all(axis=1)
        if known.any():
            theirs[known] = log_loss_rows(p[known] if plan.ties else without_ties(p[known]), rows.y[known])
        gains += part_gains(table.name, rows.losses, theirs, rows.groups, parts)
    return gains
