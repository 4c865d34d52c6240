"""Evaluate a submission against labels, beside what the plan promised.

Uniform, the prior, equal weights and each member stand beside it on the same rows. Where the true odds are known, also beside
the best possible.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.plan import Plan, load_plan
from ensemble.pools.calibration import equal_weights
from ensemble.predict.outcome import REPORT, TABLES
from ensemble.predict.run import work_folder
from zoo.contracts import Say
from zoo.data.battles import Battles
from zoo.data.sample import truth_path
from zoo.data.splits import prompt_groups
from zoo.data.usable import MOST_BAD, usable_battles
from zoo.errors import ZooError
from zoo.pipeline.submissions import read_predictions
from zoo.report.text import Cell, Column, Table, lowest
from zoo.scores.metrics import accuracy_of_two, log_loss_rows, mean_and_error, uniform_loss
from zoo.scores.tables import PROBABILITIES, probabilities, without_ties

BLEND = "blend"  # the submission's own line
BEST_POSSIBLE = "best possible"  # the line of the true probabilities
PROMISED = "promised"  # the plan's own estimate, on other rows


@dataclass(frozen=True)
class Line:
    """One row of the table: mean log loss and its standard error over `rows`.

    The error is None for a constant or one row. `accuracy`: the share of rows whose winner is the likelier, None where
    battles can be ties, or where only losses are known. `difference`: log loss of the submission minus this, on the same rows
    (of the promise, on other ones), with its standard error.
    """

    name: str
    log_loss: float
    log_loss_se: float | None
    rows: int
    accuracy: float | None = None
    difference: float | None = None
    difference_se: float | None = None

    @property
    def z(self) -> float | None:
        """The difference in its standard errors."""
        return self.difference / self.difference_se if self.difference is not None and self.difference_se else None


def evaluate(
    plan_path: Path, battles_path: Path, submission_path: Path, *, say: Say = lambda _: None, most_bad: float = MOST_BAD
) -> list[Line]:
    """Log loss of a submission and of what stands beside it.

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
    frame = frame.assign(group=prompt_groups(frame))
    labels = frame["label"].to_numpy()
    given = read_predictions(submission_path, set(battles.ids), ties=battles.can_tie)
    p = _rows_of(given, frame["id"], submission_path)
    if not battles.can_tie:
        p = without_ties(p)
    losses = log_loss_rows(p, labels)
    prior = np.tile(np.array(plan.prior), (len(frame), 1))
    uniform = uniform_loss(ties=battles.can_tie)
    even = np.tile([1 / 3] * 3 if battles.can_tie else [1 / 2, 1 / 2, 0], (len(frame), 1))
    lines = [
        replace(_line("uniform", even, frame, battles, losses), log_loss=uniform, log_loss_se=None, accuracy=None),
        _line("label prior of the training data", prior, frame, battles, losses),
        *_members(plan, battles, frame, losses),
    ]
    blend = _line(BLEND, p, frame, battles)
    lines = [promise(plan, blend), *lines, blend]
    truth = truth_path(battles_path)
    if truth.exists():
        known = pd.read_csv(truth, dtype={"id": "str"}, float_precision="round_trip")
        lines.append(_line(BEST_POSSIBLE, _rows_of(known, frame["id"], truth), frame, battles, losses))
    return lines


def promise(plan: Plan, blend: Line) -> Line:
    """What the plan promised: on the rows that it was recalibrated on, else on its own.

    The submission's rows are others, so that the error of the difference is that of two independent means.
    """
    loss, error, of = promised(plan)
    rows = plan.fitted_rows if plan.calibration is None else plan.calibration.rows
    right = plan.oof_accuracy if plan.calibration is None and blend.accuracy is not None else None
    apart = math.hypot(error, blend.log_loss_se or 0.0)
    return Line(f"{PROMISED}, {of}", loss, error, rows, right, blend.log_loss - loss, apart)


def promised(plan: Plan) -> tuple[float, float, str]:
    """The log loss that a plan promises, its standard error, and how it was found."""
    if found := plan.calibration:
        return found.log_loss, found.log_loss_se, f"recalibrated on {found.battles}"
    return plan.oof_log_loss, plan.oof_log_loss_se, "out of fold"


def evaluation_table(lines: Sequence[Line]) -> Table:
    """A submission beside what it must beat.

    The lowest log loss is marked, the best possible and the promise apart.
    """
    has_accuracy = any(line.accuracy is not None for line in lines)
    columns = [
        Column("prediction", "name"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        *([Column("accuracy", form=".4f")] if has_accuracy else []),
        Column("blend against it", "difference", "+.4f"),
        Column("se", "difference_se", ".4f", drop=2),
        Column("z", form="+.1f", drop=3),
        Column("rows", form=",", drop=1),
    ]
    rows: list[list[Cell]] = []
    for line in lines:
        right = [line.accuracy] if has_accuracy else []
        apart = [line.difference, line.difference_se, line.z]
        rows.append([line.name, line.log_loss, line.log_loss_se, *right, *apart, line.rows])
    return Table(columns, rows, lowest([None if is_apart(line) else line.log_loss for line in lines]))


def is_apart(line: Line) -> bool:
    """Whether a line is no rival of the submission: the best possible, and the promise."""
    return line.name == BEST_POSSIBLE or line.name.startswith(PROMISED)


def _line(name: str, p: np.ndarray, frame: pd.DataFrame, battles: Battles, blend: np.ndarray | None = None) -> Line:
    """The line of triples (rows, 3) for the labelled rows of `frame`, with their prompts as `group`.

    `blend`: the submission's losses (rows,) on the same rows. Errors are by prompts.
    """
    labels, groups = frame["label"].to_numpy(), frame["group"].to_numpy()
    losses = log_loss_rows(p if battles.can_tie else without_ties(p), labels)
    right = None if battles.can_tie else accuracy_of_two(losses)
    loss, error = mean_and_error(losses, groups)
    difference, apart = (None, None) if blend is None else mean_and_error(blend - losses, groups)
    known = [None if value is None or math.isnan(value) else value for value in (error, difference, apart)]
    return Line(name, loss, known[0], len(labels), right, *known[1:])


def _rows_of(table: pd.DataFrame, ids: pd.Series, path: Path) -> np.ndarray:
    """Probabilities (rows, 3) in the order of `ids`, joined by id."""
    missing = sorted(set(ids) - set(table["id"]))
    if missing:
        raise ZooError(f"{path}: {len(missing)} ids of the battles are missing, first {', '.join(missing[:3])}")
    return probabilities(table.set_index("id").loc[ids])


def _members(plan: Plan, battles: Battles, frame: pd.DataFrame, blend: np.ndarray) -> list[Line]:
    """Equal weights, and each member alone on the rows of `frame` that it scored, from what `predict` left.

    None where it left nothing. `blend`: the submission's losses (rows,).
    """
    folder = work_folder(plan, battles)
    try:
        tables = pd.read_parquet(folder / TABLES).set_index("id").loc[frame["id"]]
        by_member = {m.name: tables[[f"{m.name} {column}" for column in PROBABILITIES]].to_numpy() for m in plan.members}
    except (OSError, ValueError, KeyError):
        return _reported(folder / REPORT)
    has = {name: ~np.isnan(p[:, 0]) for name, p in by_member.items()}
    lines = [
        _line(name, p[has[name]], frame[has[name]], battles, blend[has[name]])
        for name, p in by_member.items()
        if has[name].any()
    ]
    if len(lines) > 1:
        equal = equal_weights(by_member, has, ties=plan.ties)
        lines.insert(0, _line("equal weights", equal, frame, battles, blend))
    return lines


def _reported(report: Path) -> list[Line]:
    """The members' lines as predict.json of a version without their tables has them, if it was made on labelled battles."""
    try:
        members = json.loads(report.read_text())["members"]
        scored = [m for m in members if m["log_loss"] is not None]
        return [Line(m["name"], m["log_loss"], m["log_loss_se"], m["rows"]) for m in scored]
    except (OSError, ValueError, KeyError, TypeError):
        return []
