"""Insight into a plan: its weak slices, how its members agree, and who else would help."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ensemble.plan import Plan
from ensemble.report.at_hand import FittedRows, fitted_rows, rows_text
from zoo.data.splits import prompt_groups
from zoo.errors import ZooError
from zoo.pipeline.members import Table, may_have_learned, score_tables, standing
from zoo.pipeline.suspicion import suspects_of_data
from zoo.pipeline.truth import truth_at_hand
from zoo.report.insight import Insight, better, insight_of
from zoo.report.insight_rows import LABEL, InsightRows
from zoo.scores.metrics import log_loss_rows
from zoo.scores.parts import PartGain, agreement, part_gains
from zoo.scores.tables import probabilities, without_ties


def plan_insight(plan: Plan, store: Path, name: str) -> Insight:
    """The insight into a plan, on the rows that it was fitted on. `name`: what people call it.

    ZooError where the members' tables or the battles with their texts are not on this machine.
    """
    found = fitted_rows(plan, store)
    if not found.battles.has_texts:
        raise ZooError(f"{found.battles.path}: has winners alone; insight needs the prompts and answers of the battles")
    rows = _rows(plan, found)
    gains, others = _beside(plan, store, rows)
    note = (
        f"{rows_text(found)} Out of fold, with the fitting, the plan has {plan.oof_log_loss:.4f} ± {plan.oof_log_loss_se:.4f}."
    )
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
        others=others,
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


def _beside(plan: Plan, store: Path, rows: InsightRows) -> tuple[list[PartGain], tuple[str, ...]]:
    """Every other scored member of the plan's data beside it in each slice, and their names.

    Not in slices of a label: nobody knows it beforehand, and whoever predicts it more often has less loss there. Without
    members that look as if they had seen the labels: a build would not take them either.
    """
    gains: list[PartGain] = []
    others = _other_tables(plan, store)
    parts = [part for part in rows.parts if part.kind != LABEL]
    for table in others:
        frame = table.usable.set_index("id")
        p = probabilities(frame.reindex(rows.frame["id"]))
        theirs = np.full(len(p), np.nan)
        known = np.isfinite(p).all(axis=1)
        if known.any():
            theirs[known] = log_loss_rows(p[known] if plan.ties else without_ties(p[known]), rows.y[known])
        gains += part_gains(table.name, rows.losses, theirs, rows.groups, parts)
    return gains, tuple(table.name for table in others)


def _other_tables(plan: Plan, store: Path) -> Sequence[Table]:
    inside = {member.name for member in plan.members}
    of_data = [table for table in score_tables(store) if table.card.dataset_digest == plan.dataset_digest]
    members = standing(of_data).members
    suspects = suspects_of_data(members, truth_at_hand(store, of_data)) if of_data else {}
    by_name = {
        member.table.name: member.table
        for place, member in enumerate(members)
        if member.table.name not in inside and place not in suspects and not may_have_learned(member.parts)
    }
    return list(by_name.values())
