"""The outcome of a prediction, for the end of a run and for predict.json."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.members.texts import DIGEST, SCRIPT
from ensemble.plan import Plan
from ensemble.pools.features import Distance
from ensemble.predict.board import Board, Submission, told_of_ties
from ensemble.predict.compare import compare, told_of_distance
from ensemble.predict.conductor import Conductor
from ensemble.predict.deadline import Deadline, StopRequest
from ensemble.predict.watch import clock
from zoo.data.battles import Battles
from zoo.data.columns import UNLABELLED
from zoo.data.splits import prompt_groups
from zoo.data.usable import unusable_line
from zoo.errors import amount
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import PROBABILITIES, without_ties
from zoo.store import write_atomic

REPORT = "predict.json"  # in the work folder: what a prediction did
# Beside it: id, the digest of its texts under DIGEST (0 where they cannot be read), and p_a, p_b, p_tie of each member by `NAME
# p_a`, NaN where it has not scored.
TABLES = "members.parquet"
COMPARED_SECONDS = 0.5  # must be left to compare the rows with the plan's
PRIOR_ALONE = 3  # exit code


@dataclass(frozen=True)
class MemberOutcome:
    """What became of a member: rows scored, rows refused, and why it stopped early.

    `log_loss`: of the member alone on the labelled rows it scored, with its standard error; None where there are none.
    """

    name: str
    rows: int
    refused_rows: int
    seconds: float
    log_loss: float | None
    log_loss_se: float | None
    note: str = ""
    checkpoint: str = ""


@dataclass(frozen=True)
class Prediction:
    """What `predict` did.

    `plan`: as it was read at the start. `predicted_seconds`: by the plan's prices on this file, without the margin. `patterns`:
    rows by the members that made them, `+` between names; `prior` where none did. `distance`: how far the rows are from those
    of the plan's promise, as a line, and by feature. `spans`: what took how long, see `zoo.tracking.spans`.
    """

    plan: Plan
    output: Path
    rows: int
    bad_rows: int
    budget_seconds: float
    predicted_seconds: float
    used_seconds: float
    members: tuple[MemberOutcome, ...]
    patterns: dict[str, int]
    log_loss: float | None
    log_loss_se: float | None
    stopped_by: str
    warnings: tuple[str, ...]
    report: Path
    distance: str = ""
    distances: dict[str, float] = field(default_factory=dict)
    spans: tuple[dict[str, Any], ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or PRIOR_ALONE where no member is in any row."""
        return 0 if self.used else PRIOR_ALONE

    @property
    def last_line(self) -> str:
        """What must not be overlooked, where there is anything of the kind."""
        if self.used:
            return ""
        return f"NO MEMBER CONTRIBUTED: all {self.rows:,} rows of {self.output} are the plan's prior (exit code {PRIOR_ALONE})"

    @property
    def used(self) -> tuple[str, ...]:
        """Members that are in at least one row."""
        named = {name for pattern in self.patterns for name in pattern.split(" + ")}
        return tuple(member.name for member in self.members if member.name in named)

    def summary(self) -> list[str]:
        """Lines for the end of a run; warnings are apart."""
        took = f"{clock(self.used_seconds)} of {clock(self.budget_seconds)}"
        lines = [f"{self.output}: {amount(self.rows, 'row')} in {took}"]
        lines += [
            f"  {count:>8,} row{' ' if count == 1 else 's'}  {pattern}"
            for pattern, count in sorted(self.patterns.items(), key=lambda item: -item[1])
        ]
        for member in self.members:
            refused = f", {member.refused_rows:,} refused" if member.refused_rows else ""
            lines.append(
                f"  {member.name}: {amount(member.rows, 'row')}{refused}" + (f"; {member.note}" if member.note else "")
            )
        if self.log_loss is not None:
            error = "" if self.log_loss_se is None else f" ± {self.log_loss_se:.4f}"
            lines.append(f"  log loss {self.log_loss:.4f}{error}")
        return [*lines, *([f"  {self.distance}"] if self.distance else [])]


def summarize(
    battles: Battles,
    conductor: Conductor,
    submission: Submission,
    deadline: Deadline,
    stop: StopRequest,
    given: Mapping[str, str],
    folder: Path,
    predicted_seconds: float,
    about: pd.DataFrame,
) -> Prediction:
    """What the prediction did, also left as predict.json in the work folder.

    `given`: where tables brought by the user came from; `about`: `ensemble.members.texts.about_rows` of the usable rows by id.
    """
    board = submission.board
    warnings = [f"{stop.signal_name}: stopped early"] if stop else []
    if battles.bad_ids:
        warnings.append(f"{battles.path}: {unusable_line(battles)}; these get the prior")
    if (note := told_of_ties(submission.plan, battles)) and not submission.plan.ties:
        warnings.append(note)
    labels = _labels(battles)
    prompts = _prompts(battles) if (labels != UNLABELLED).any() else np.zeros(len(labels), dtype=np.int64)
    members = tuple(
        _outcome(name, conductor, board, deadline, given, labels, prompts, ties=submission.ties) for name in board.members
    )
    warnings += [f"{member.name}: {member.note}" for member in members if member.note and member.name not in given]
    if submission.failure:
        warnings.append(f"{submission.output} is whole, but lacks the newest scores: {submission.failure}")
    loss, error = _log_loss(submission.p, labels, prompts)
    found = _distances(conductor, submission, deadline, about)
    prediction = Prediction(
        plan=submission.plan,
        output=submission.output,
        rows=len(board.ids),
        bad_rows=len(battles.bad_ids),
        budget_seconds=deadline.budget_seconds,
        predicted_seconds=round(predicted_seconds, 2),
        used_seconds=round(deadline.now(), 2),
        members=members,
        patterns={" + ".join(names) or "prior": count for names, count in submission.patterns.items()},
        log_loss=loss,
        log_loss_se=error,
        stopped_by=stop.signal_name,
        warnings=tuple(warnings),
        report=folder / REPORT,
        distance=told_of_distance(submission.plan, found),
        distances={one.feature: round(one.ks, 4) for one in found},
    )
    try:
        report = {name: value for name, value in asdict(prediction).items() if name not in ("plan", "spans")}
        write_atomic(prediction.report, json.dumps(report, indent=1, default=str))
        write_atomic(folder / TABLES, _tables(board, about))
    except OSError as error:
        lost = (
            f"{folder}: {error.strerror or error}; the submission is whole, but `ensemble evaluate` will not find its members"
        )
        prediction = replace(prediction, warnings=(*prediction.warnings, lost))
    return prediction


def exit_code(submission: Submission) -> int:
    """0, or PRIOR_ALONE where no member is in any row of the file."""
    return 0 if submission.contributed else PRIOR_ALONE


def _distances(conductor: Conductor, submission: Submission, deadline: Deadline, about: pd.DataFrame) -> list[Distance]:
    """How far the rows are from those of the plan's promise; nothing where no time is left to look."""
    if deadline.budget_seconds - deadline.now() < COMPARED_SECONDS:
        return []
    tables, has = submission.board.tables()
    return compare(submission.plan, tables, has, conductor.characters, about[SCRIPT].tolist())


def _tables(board: Board, about: pd.DataFrame) -> bytes:
    """What every member said, as parquet."""
    digests = about[DIGEST].reindex(list(board.ids), fill_value=0).to_numpy(dtype=np.uint64)
    columns: dict[str, Any] = {"id": list(board.ids), DIGEST: digests}
    for name in board.members:
        columns |= {f"{name} {column}": board.table(name)[:, place] for place, column in enumerate(PROBABILITIES)}
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _outcome(
    name: str,
    conductor: Conductor,
    board: Board,
    deadline: Deadline,
    given: Mapping[str, str],
    labels: np.ndarray,
    prompts: np.ndarray,
    *,
    ties: bool,
) -> MemberOutcome:
    runs = [run for run in conductor.runs if name in run.job.members]
    notes = [run.rejected.get(name) or run.note or (run.death and f"started once more: {run.death}") for run in runs]
    note = "; ".join(dict.fromkeys(note for note in notes if note)) or (f"from {given[name]}" if name in given else "")
    seconds = sum((run.ended or deadline.now()) - run.started for run in runs if run.started)
    has = board.has(name)
    p = board.table(name) if ties else without_ties(board.table(name))
    loss, error = _log_loss(p, np.where(has, labels, UNLABELLED), prompts)
    checkpoint = conductor.plan.member(name).checkpoint
    return MemberOutcome(name, int(has.sum()), board.refused(name), round(seconds, 2), loss, error, note, checkpoint)


def _labels(battles: Battles) -> np.ndarray:
    """Labels (rows,) in file order, UNLABELLED where a row is bad or has none."""
    label = dict(zip(battles.frame["id"], battles.frame["label"], strict=True))
    return np.array([label.get(row_id, UNLABELLED) for row_id in battles.ids], dtype=np.int64)


def _prompts(battles: Battles) -> np.ndarray:
    """What is the same for rows of one prompt (rows,), in file order; -1 where a row is bad."""
    group = dict(zip(battles.frame["id"], prompt_groups(battles.frame).tolist(), strict=True))
    return np.array([group.get(row_id, -1) for row_id in battles.ids], dtype=np.int64)


def _log_loss(p: np.ndarray, labels: np.ndarray, prompts: np.ndarray) -> tuple[float | None, float | None]:
    """Mean log loss of the labelled rows, and its error by prompts; None where there are none."""
    rows = labels != UNLABELLED
    if not rows.any():
        return None, None
    loss, error = mean_and_error(log_loss_rows(p[rows], labels[rows]), prompts[rows])
    return loss, None if math.isnan(error) else error
