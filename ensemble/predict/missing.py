"""Members that have said nothing of labelled battles yet: named, priced, or run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.plan import Plan, PlanMember
from ensemble.predict.apart import predict_apart
from ensemble.predict.known import Known, find_known
from ensemble.predict.replan import predicted_row_seconds
from zoo.contracts import Say
from zoo.data.battles import Battles, count_characters
from zoo.data.usable import MOST_BAD
from zoo.errors import ZooError
from zoo.report.duration import format_seconds
from zoo.scores.tables import PROBABILITIES
from zoo.settings import home


@dataclass(frozen=True)
class Labelled:
    """Where labelled battles are, and what is known of them.

    `scores`: the user's tables by member. `run`: whether members that have none are run.
    """

    path: Path
    scores: Mapping[str, Path] = field(default_factory=dict)
    run: bool = False
    most_bad: float = MOST_BAD


def all_known(plan: Plan, plan_path: Path, battles: Battles, frame: pd.DataFrame, asked: Labelled, say: Say) -> Known:
    """What every member says of the rows.

    Those that have said nothing are run where that is asked for, and named in a ZooError where not.
    """
    known = find_known(plan, battles, frame, asked.scores, home())
    missing = [member for member in plan.members if member.name not in known.tables]
    if not missing:
        return known
    named, seconds = _forecast(missing, count_characters(battles.frame))
    if not asked.run or any(member.request is None for member in missing):
        imported = [member.name for member in missing if member.request is None]
        mend = f"give {' and '.join(f'--scores {name}=FILE' for name in imported or [missing[0].name])}"
        mend += "" if imported else f", or --run to make what is missing (about {format_seconds(seconds)})"
        raise ZooError(f"{asked.path}: no probabilities of {named} for these battles; {mend}")
    say(f"running {named} on {asked.path}")
    _run(plan, plan_path, battles, frame, known, asked, seconds, say)
    known = find_known(plan, battles, frame, asked.scores, home())
    if silent := [member.name for member in missing if member.name not in known.tables]:
        raise ZooError(f"{asked.path}: {', '.join(silent)} still has no row; `ensemble predict` on it says why")
    return known


def _forecast(members: Sequence[PlanMember], characters: np.ndarray) -> tuple[str, float]:
    """The members with what they would take here by the plan's prices, and the sum of that in seconds."""
    named, total = [], 0.0
    for member in members:
        seconds = member.cost.load_seconds + float(predicted_row_seconds(member, characters).sum())
        total += seconds
        named.append(f"{member.name} ({'imported' if member.request is None else f'about {format_seconds(seconds)}'})")
    return ", ".join(named), total


def _run(
    plan: Plan, plan_path: Path, battles: Battles, frame: pd.DataFrame, known: Known, asked: Labelled, seconds: float, say: Say
) -> None:
    """Predict the battles in a process of its own, whose work folder then has what members said; ZooError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        tables = dict[str, Path]()
        budget = max(plan.budget_seconds, 60 + 2 * plan.margin * (seconds + plan.overhead_seconds))
        for name, table in known.tables.items():
            scored = ~np.isnan(table[:, 0])
            rows = pd.DataFrame(table[scored], columns=list(PROBABILITIES)).assign(id=frame["id"].to_numpy()[scored])
            path = asked.scores.get(name) or Path(folder) / f"{len(tables)}.csv"
            if name not in asked.scores:
                rows.to_csv(path, index=False)
            tables[name] = path
        try:
            output = Path(folder) / "submission.csv"
            predict_apart(plan_path, asked.path, output, budget=f"{budget:.0f}s", scores=tables, say=say)
        except ZooError as error:
            raise ZooError(f"{asked.path}: running the missing members: {error}") from error
