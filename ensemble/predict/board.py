"""The board: members' probabilities so far, and the submission that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.plan import Plan
from ensemble.pools.calibration import blend_by_plan
from ensemble.pools.patterns import Blended
from ensemble.predict.deadline import Deadline
from zoo.data.battles import Battles
from zoo.errors import ZooError, amount
from zoo.pipeline.import_checks import read_table, told_of_hard
from zoo.scores.form import COMPETITION, Form
from zoo.scores.tables import OK, probabilities, without_ties, write_submission
from zoo.tracking.spans import open_span

WRITE_SHARE = 0.05  # of the time that intermediate writes may take
LONGEST_WRITE_INTERVAL_SECONDS = 60.0


class Board:
    """Probabilities of each member for each row of the file.

    NaN where a member has not, or could not, score a row. `ids` are all ids of the battles file in its order. Rows come in by
    id, never by position. Without `ties`, as the plan says, p_tie is taken out of every row as it comes in: blends of two
    outcomes were fitted on such tables. `lengths` (rows, 3): characters of each row's prompt, A and B, NaN where they cannot be
    read; None where there are no battles. Trees that read lengths leave such rows as the blend that they correct has them.
    """

    def __init__(
        self, ids: Sequence[str], members: Sequence[str], *, ties: bool = True, lengths: np.ndarray | None = None
    ) -> None:
        self.ids = tuple(ids)
        self.lengths = lengths
        self.members = tuple(members)
        self._ties = ties
        self._row = {row_id: row for row, row_id in enumerate(self.ids)}
        self._p = {name: np.full((len(self.ids), 3), np.nan) for name in self.members}
        self._refused = {name: np.zeros(len(self.ids), dtype=bool) for name in self.members}

    def add(self, member: str, frame: pd.DataFrame) -> int:
        """Take in rows of a checked score table; how many of them are news.

        Tables as `zoo.scores.tables.read_scores` gives them. A row that is there already stays as it is. ZooError where the
        table has rows of other battles.
        """
        unknown = [row_id for row_id in frame["id"] if row_id not in self._row]
        if unknown:
            raise ZooError(f"{len(unknown)} ids are not in the battles: {', '.join(unknown[:3])}")
        rows = np.fromiter((self._row[row_id] for row_id in frame["id"]), dtype=np.int64, count=len(frame))
        news = ~self.answered(member)[rows]
        fine = (frame["status"] == OK).to_numpy()
        p = probabilities(frame) if self._ties else without_ties(probabilities(frame))
        self._p[member][rows[news & fine]] = p[news & fine]
        self._refused[member][rows[news & ~fine]] = True
        return int(news.sum())

    def discard(self, member: str) -> None:
        """Forget everything a member said."""
        self._p[member][:] = np.nan
        self._refused[member][:] = False

    def has(self, member: str) -> np.ndarray:
        """Rows with probabilities of this member, bool (rows,)."""
        there: np.ndarray = ~np.isnan(self._p[member][:, 0])
        return there

    def answered(self, member: str) -> np.ndarray:
        """Rows, bool (rows,), that need no more work of this member: scored, or refused."""
        done: np.ndarray = self.has(member) | self._refused[member]
        return done

    def refused(self, member: str) -> int:
        """How many rows the member's stage could not score."""
        return int(self._refused[member].sum())

    def table(self, member: str) -> np.ndarray:
        """Triples (rows, 3) of a member, NaN where it has not scored a row."""
        return self._p[member]

    def tables(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Triples (rows, 3) of every member, and the rows that each has scored, bool (rows,)."""
        return dict(self._p), {name: self.has(name) for name in self.members}

    def blended(self, plan: Plan, planned: Mapping[str, np.ndarray]) -> Blended:
        """Every row's blend of the members that have scored it, and the plan's prior where none has.

        `planned[member]`: the rows that the plan's gates give to a member, bool (rows,). A row that has exactly the members
        the plan meant it to have gets the blend fitted on such rows; any other the one fitted on all rows.
        """
        tables, has = self.tables()
        as_planned = np.all([has[name] == planned[name] for name in self.members], axis=0)
        blended = blend_by_plan(plan, tables, has, as_planned=as_planned, lengths=self.lengths)
        return replace(blended, p=whole(blended.p, plan.prior))


def whole(p: np.ndarray, prior: Sequence[float]) -> np.ndarray:
    """Each row finite, not negative and summing to 1.

    The prior takes the place of a row for which that cannot be had.
    """
    p = np.clip(p, 0.0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = p / p.sum(axis=1, keepdims=True)
    broken = ~np.isfinite(p).all(axis=1)
    p[broken] = np.asarray(prior, dtype=np.float64) / np.sum(prior)
    return p


@dataclass
class Submission:
    """The file on disk, and what it holds.

    Without `ties`, since the plan or the file knows none, every row of it has a p_tie of 0. `form`: its columns.
    """

    output: Path
    plan: Plan
    board: Board
    deadline: Deadline
    ties: bool = True
    form: Form = COMPETITION
    p: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    patterns: dict[tuple[str, ...], int] = field(default_factory=dict)
    written: bool = False
    failure: str = ""  # why the newest blend is not in the file, which is whole as it was before
    _last: float = 0.0

    def write(self, planned: Mapping[str, np.ndarray]) -> None:
        """Blend what is there and replace the file; the time it takes is what the end reserves.

        A later write may fail, of a full disk for one: the file stays what it was. OSError where there is none yet.
        """
        begun = self.deadline.now()
        blended = self.board.blended(self.plan, planned)
        if not self.ties:
            blended = replace(blended, p=without_ties(blended.p))
        pooled = self.deadline.now()
        try:
            write_submission(self.board.ids, blended.p, self.output, self.form)
        except OSError as error:
            if not self.written:
                raise
            self.failure = error.strerror or str(error)
        else:
            self.p, self.patterns, self.written, self.failure = blended.p, blended.patterns, True, ""
        self._last = self.deadline.now()
        self.deadline.measured_write(self._last - begun)
        root = open_span()
        root.piece("pool", begun, pooled)
        root.piece("write", pooled, self._last, rows=len(blended.p))

    @property
    def contributed(self) -> bool:
        """Whether any member is in any row of the file."""
        return any(names and rows for names, rows in self.patterns.items())

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last write for another one between chunks."""
        interval = min(LONGEST_WRITE_INTERVAL_SECONDS, self.deadline.budget_seconds / 50)
        return self.deadline.now() - self._last >= max(interval, self.deadline.write_seconds / WRITE_SHARE)


def known_members(plan: Plan, scores: Mapping[str, Path]) -> None:
    """ZooError where a given table is of no member."""
    names = [member.name for member in plan.members]
    for name in scores:
        if name not in names:
            mend = f"name its table: --scores MEMBER={scores[name]}"
            raise ZooError(f"--scores {name}=...: the plan has no member {name!r}; it has {', '.join(names)}; {mend}")


def check_given(plan: Plan, scores: Mapping[str, Path]) -> None:
    """ZooError where a given table fits no member, or a member has no table and cannot run."""
    known_members(plan, scores)
    for member in plan.members:
        if member.request is None and member.name not in scores:
            raise ZooError(
                f"{member.name}: imported, so it cannot be run on new battles; "
                f"give its table for them: --scores {member.name}=FILE"
            )


def add_given(board: Board, scores: Mapping[str, Path], *, ties: bool) -> dict[str, str]:
    """Put the given tables on the board; by member how each was read and what it lacks.

    `ties`: whether battles can be ties; tables of two classes are taken only where they cannot.
    """
    sources = {}
    for name, path in scores.items():
        given = read_table(path, set(board.ids), ties=ties)
        frame = given.table
        known = frame[frame["id"].isin(board.ids)]
        if known.empty:
            raise ZooError(f"{path}: none of its {len(frame):,} ids is in the battles; give the table for the file to predict")
        board.add(name, known)
        lacking = len(board.ids) - len(known)
        lacks = [f"which lacks {amount(lacking, 'row')}"] if lacking else []
        lacks += [f"{amount(len(frame) - len(known), 'row')} of other ids left alone"] if len(known) < len(frame) else []
        hard = told_of_hard(probabilities(known[known["status"] == OK]))
        sources[name] = ", ".join([str(path), *lacks, *given.notes, *([hard] if hard else [])])
    return sources


def told_of_ties(plan: Plan, battles: Battles) -> str:
    """What becomes of p_tie where plan and file are of two kinds; empty where of one."""
    if plan.ties == battles.can_tie:
        return ""
    if plan.ties:
        return f"{battles.kind} battles have no ties, and the plan's have: p_tie is 0 in every row, p_a and p_b are scaled to 1"
    return (
        f"the plan is of battles that have no ties, and {battles.kind} battles can have them: p_tie is 0 in every row, so that "
        "each tie costs 34.5 nats; if there are ties, build a plan on battles that have them"
    )
