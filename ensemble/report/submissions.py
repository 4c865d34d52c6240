"""The table of submissions: what plans promised, and what the competition's board said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from zoo.report.text import Cell, Column, Page, Table, lowest
from zoo.scores.metrics import mean_and_error
from zoo.tracking.submissions import Submitted

FEWEST = 3  # submissions of which an offset and a correlation are told


@dataclass(frozen=True)
class Agreement:
    """How board and promise go together over `submissions` of them.

    `offset`: the mean of public score less promise, with its standard error. `correlation`: Pearson's, None where all promises
    or all scores are one number.
    """

    submissions: int
    offset: float
    offset_se: float
    correlation: float | None


def agreement(submissions: Sequence[Submitted]) -> Agreement | None:
    """How board and promise go together; None of fewer than three submissions."""
    if len(submissions) < FEWEST:
        return None
    promise, board = (np.array([getattr(one, name) for one in submissions]) for name in ("promise", "public"))
    offset, error = mean_and_error(board - promise)
    with np.errstate(invalid="ignore", divide="ignore"):
        together = float(np.corrcoef(promise, board)[0, 1])
    return Agreement(len(submissions), offset, error, together if math.isfinite(together) else None)


def submissions_page(submissions: Sequence[Submitted]) -> Page:
    """Every submission in order of time, and below it how board and promise go together."""
    columns = [
        Column("plan", prose=True),
        Column("build", drop=4),
        Column("when", drop=2),
        Column("promised", "promise", ".4f"),
        Column("se", "promise_se", ".4f", drop=3),
        Column("public", form=".4f"),
        Column("private", form=".4f"),
        Column("public - promised", "difference", "+.4f", drop=1),
        Column("note", drop=5, prose=True),
    ]
    rows: list[list[Cell]] = [
        [
            *(one.plan, one.build[:6], f"{one.at:%Y-%m-%d %H:%M}"),
            *(one.promise, one.promise_se, one.public, one.private, one.difference, one.note),
        ]
        for one in submissions
    ]
    page: list[str | Table] = [Table(columns, rows, lowest([one.public for one in submissions]))]
    if not submissions:
        return ["no submission was told yet: `ensemble submitted PLAN --public SCORE`", *page]
    if found := agreement(submissions):
        along = "" if found.correlation is None else f"; correlation {found.correlation:+.2f}"
        page += ["", f"public - promised: {found.offset:+.4f} +- {found.offset_se:.4f} over {found.submissions}{along}"]
    return page


def submissions_data(submissions: Sequence[Submitted]) -> dict[str, object]:
    """The same as plain data."""
    found = agreement(submissions)
    rows = [{**asdict(one), "at": one.at.isoformat(), "difference": one.difference} for one in submissions]
    return {"submissions": rows, "agreement": found and asdict(found)}
