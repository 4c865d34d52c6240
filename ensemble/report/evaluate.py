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
from zoo.contracts import Say
from zoo.data.battles import Battles
from zoo.data.sample import truth_path
from zoo.data.usable import MOST_BAD, usable_battles
from zoo.errors import ZooError
from zoo.report.text import Cell, Column, Table, lowest
from zoo.scores.metrics import accuracy_of_two, log_loss_rows, mean_and_error, uniform_loss
from zoo.scores.tables import PROBABILITIES, probabilities, read_submission, without_ties

BEST_POSSIBLE = "best possible"  # the line of the true probabilities


@dataclass(frozen=True)
class Line:
    """One row of the table: mean log loss and its standard error over `rows`.

    The error is None for a constant or one row. `accuracy`: the share of rows whose winner is the likelier, None where
    battles can be ties, or where only losses are known.
    """

    name: str
    log_loss: float
    log_loss_se: float | None
    rows: int
    accuracy: float | None = None


def evaluate(
    plan_path: Path, battles_path: Path, submission_path: Path, *, say: Say = lambda _: None, most_bad: float = MOST_BAD
) -> list[Line]:
    """Log loss of a submission and of what stands beside it, the worst first.

    Losses are means over the labelled rows of `battles_path`. Members alone are read from what `predict` left, so they
    are there for the plan and battles it ran on, labelled then or not. The best possible is that of the true
    probabilities, which only generated battles have (`zoo data sample`). Where no battle of this kind can be a tie, p_tie is
    taken out of everything that is judged, and accuracy stands beside log loss. `say`, `most_bad`: as
    `zoo.data.usable.usable_battles` takes them.
    """
    plan, battles = load_plan(plan_path), usable_battles(battles_path, say=say, most_bad=most_bad)
    frame = battles.frame[battles.frame["label"] >= 0]
    if frame.empty:
        raise ZooError(f"{battles_path}: no row has a winner; give labelled battles")
    labels = frame["label"].to_numpy()
    lines = [
        Line("uniform", uniform_loss(ties=battles.can_tie), None, len(frame)),
        _line("label prior of the training data", np.tile(np.array(plan.prior), (len(frame), 1)), labels, battles),
        *_members(plan, battles, frame),
        _line("blend", _rows_of(read_submission(submission_path), frame["id"], submission_path), labels, battles),
    ]
    truth = truth_path(battles_path)
    if truth.exists():
        known = pd.read_csv(truth, dtype={"id": "str"}, float_precision="round_trip")
        lines.append(_line(BEST_POSSIBLE, _rows_of(known, frame["id"], truth), labels, battles))
    return lines


def evaluation_table(lines: Sequence[Line]) -> Table:
    """A submission beside what it must beat.

    The lowest log loss is marked, the best possible apart.
    """
    has_accuracy = any(line.accuracy is not None for line in lines)
    columns = [
        Column("prediction", "name"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        *([Column("accuracy", form=".4f")] if has_accuracy else []),
        Column("rows", form=",", drop=1),
    ]
    rows: list[list[Cell]] = [
        [line.name, line.log_loss, line.log_loss_se, *([line.accuracy] if has_accuracy else []), line.rows] for line in lines
    ]
    return Table(columns, rows, lowest([None if line.name == BEST_POSSIBLE else line.log_loss for line in lines]))


def _line(name: str, p: np.ndarray, labels: np.ndarray, battles: Battles) -> Line:
    losses = log_loss_rows(p if battles.can_tie else without_ties(p), labels)
    right = None if battles.can_tie else accuracy_of_two(losses)
    loss, error = mean_and_error(losses)
    return Line(name, loss, None if math.isnan(error) else error, len(labels), right)


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
            lines.append(_line(name, p[scored], labels[scored], battles))
    return lines


def _reported(report: Path) -> list[Line]:
    """The members' lines as predict.json of a version without their tables has them, if it was made on labelled battles."""
    try:
        members = json.loads(report.read_text())["members"]
        scored = [m for m in members if m["log_loss"] is not None]
        return [Line(m["name"], m["log_loss"], m["log_loss_se"], m["rows"]) for m in scored]
    except (OSError, ValueError, KeyError, TypeError):
        return []
