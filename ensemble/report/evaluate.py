"""Evaluate a submission against labels, beside uniform, the prior and each member.

Where the true odds are known, also beside the best possible.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.plan import Plan, load_plan
from ensemble.predict.outcome import REPORT, TABLES
from ensemble.predict.run import work_folder
from zoo.data.battles import Battles, read_battles
from zoo.data.sample import truth_path
from zoo.errors import ZooError
from zoo.report.text import Column, Table, lowest
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import PROBABILITIES, probabilities, read_submission

BEST_POSSIBLE = "best possible"  # the line of the true probabilities


@dataclass(frozen=True)
class Line:
    """One row of the table: mean log loss and its standard error over `rows`.

    The error is None for a constant or one row.
    """

    name: str
    log_loss: float
    log_loss_se: float | None
    rows: int


def evaluate(plan_path: Path, battles_path: Path, submission_path: Path) -> list[Line]:
    """Log loss of a submission and of what stands beside it, the worst first.

    Losses are means over the labelled rows of `battles_path`. Members alone are read from what `predict` left, so they
    are there for the plan and battles it ran on, labelled then or not. The best possible is that of the true
    probabilities, which only generated battles have (`zoo data sample`).
    """
    plan, battles = load_plan(plan_path), read_battles(battles_path)
    frame = battles.frame[battles.frame["label"] >= 0]
    if frame.empty:
        raise ZooError(f"{battles_path}: no row has a winner; give labelled battles")
    labels = frame["label"].to_numpy()
    lines = [
        Line("uniform", math.log(3), None, len(frame)),
        _line("label prior of the training data", np.tile(np.array(plan.prior), (len(frame), 1)), labels),
        *_members(plan, battles, frame),
        _line("blend", _rows_of(read_submission(submission_path), frame["id"], submission_path), labels),
    ]
    truth = truth_path(battles_path)
    if truth.exists():
        known = pd.read_csv(truth, dtype={"id": "str"}, float_precision="round_trip")
        lines.append(_line(BEST_POSSIBLE, _rows_of(known, frame["id"], truth), labels))
    return lines


def evaluation_table(lines: Sequence[Line]) -> Table:
    """A submission beside what it must beat.

    The lowest log loss is marked, the best possible apart.
    """
    columns = [
        Column("prediction", "name"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("rows", form=",", drop=1),
    ]
    rows = [[line.name, line.log_loss, line.log_loss_se, line.rows] for line in lines]
    return Table(columns, rows, lowest([None if line.name == BEST_POSSIBLE else line.log_loss for line in lines]))


def _line(name: str, p: np.ndarray, labels: np.ndarray) -> Line:
    loss, error = mean_and_error(log_loss_rows(p, labels))
    return Line(name, loss, None if math.isnan(error) else error, len(labels))


def _rows_of(table: pd.DataFrame, ids: pd.Series, path: Path) -> np.ndarray:
    """Probabilities (rows, 3) in the order of `ids`, joined by id."""
    missing = sorted(set(ids) - set(table["id"]))
    if missing:
        raise ZooError(f"{path}: {len(missing)} ids of the battles are missing, first {', '.join(missing[:3])}")
    return probabilities(table.set_index("id").loc[ids])


def _members(plan: Plan, battles: Battles, frame: pd.DataFrame) -> list[Line]:
    """Each member alone on the rows of `frame` that it scored, from what `predict` left; none where it left nothing."""
    folder = work_folder(plan, battles)
    try:
        tables = pd.read_parquet(folder / TABLES).set_index("id").loc[frame["id"]]
        by_member = {m.name: tables[[f"{m.name} {column}" for column in PROBABILITIES]].to_numpy() for m in plan.members}
    except (OSError, ValueError, KeyError):
        return _reported(folder / REPORT)
    labels, lines = frame["label"].to_numpy(), []
    for name, p in by_member.items():
        scored = ~np.isnan(p[:, 0])
        if scored.any():
            lines.append(_line(name, p[scored], labels[scored]))
    return lines


def _reported(report: Path) -> list[Line]:
    """The members' lines as predict.json of a version without their tables has them, if it was made on labelled battles."""
    try:
        members = json.loads(report.read_text())["members"]
        scored = [m for m in members if m["log_loss"] is not None]
        return [Line(m["name"], m["log_loss"], m["log_loss_se"], m["rows"]) for m in scored]
    except (OSError, ValueError, KeyError, TypeError):
        return []
