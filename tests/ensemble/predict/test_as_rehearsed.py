"""A prediction without mishap gives each row what the rehearsal's code says of it, whole files and gates alike."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.table import Members
from ensemble.plan import Plan
from ensemble.predict.attempts import Setting
from ensemble.predict.board import Board, Submission
from ensemble.predict.conductor import Conductor
from ensemble.predict.deadline import Deadline
from ensemble.predict.job import JobRun
from ensemble.predict.workplace import Workplace
from ensemble.search.assemble import assemble
from ensemble.search.build import pose_problem
from ensemble.search.decide import find_candidates
from ensemble.search.fitting import Fitted, carry_out, fit_candidate
from ensemble.search.prices import Budget
from ensemble.search.problem import Candidate
from ensemble.search.rehearse import Confirmed
from tests.helpers.members import make_members, request
from zoo.contracts import Input
from zoo.scores.tables import probabilities, read_submission, score_table
from zoo.targets import load_target

BUDGET, MARGIN = 5400.0, 1.5
# Prices are multiplied by it: whatever the clock says, no time is left for rows that the plan does not pay for.
NO_SPARE_TIME = 1e6


def planned(gates: int, own_blends: bool) -> tuple[Plan, Candidate, Fitted]:
    """A plan whose candidate has so many gated members, with or without blends of their own for coverage patterns."""
    asked = request(BUDGET)
    problem = pose_problem(make_members(rows=2000, seed=17), asked)
    found = find_candidates(problem, asked, BUDGET / MARGIN)
    fitting = [c for c in found.considered if len(c.seen) == gates and bool(c.own_blend) == own_blends]
    candidate = min(fitting, key=lambda c: c.loss)
    found = replace(found, candidates={"coverage": candidate})
    confirmed = Confirmed("coverage", candidate, "chosen", candidate.losses[None], 1.0, "so", {"coverage": candidate.losses})
    plan = assemble(problem, found, confirmed, Budget(BUDGET, MARGIN, "given"), load_target("t4x2"))
    assert len(plan.members) == len(candidate.members)
    return plan.model_copy(update={"margin": NO_SPARE_TIME}), candidate, fit_candidate(problem, candidate)


def predicted(plan: Plan, new: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Conductor]:
    """The submission's probabilities (rows, 3) where each job hands in its members' tables of `new` the moment it starts."""

    def start(run: JobRun, rows: np.ndarray, work: object, pace: object, now: float) -> None:
        run.rows, run.status, run.ended = rows, "ended", now
        for member in run.members:
            table = new.p[new.names.index(member.name)]
            run.board.add(member.name, score_table([new.ids[row] for row in rows], table[rows]))

    monkeypatch.setattr(JobRun, "start", start)
    board = Board(new.ids, [member.name for member in plan.members])
    deadline = Deadline(plan.budget_seconds, time.monotonic())
    setting = Setting(Input(path=tmp_path / "battles.csv", fingerprint="0"), tmp_path, Workplace(tmp_path, print))
    usable = np.ones(len(new.ids), dtype=bool)
    conductor = Conductor(plan, board, new.characters, usable, setting, deadline, given={}, say=lambda _: None)
    while not conductor.finished:
        conductor.tick()
    submission = Submission(tmp_path / "submission.csv", plan, board, deadline)
    submission.write(conductor.planned)
    return probabilities(read_submission(submission.output).set_index("id").loc[list(new.ids)]), conductor


@pytest.mark.parametrize(("gates", "own_blends"), [(0, False), (1, False), (1, True), (2, True)])
def test_the_submission_is_what_the_rehearsal_says_of_the_same_rows(gates, own_blends, tmp_path, monkeypatch):
    plan, candidate, fitted = planned(gates, own_blends)
    new = make_members(rows=700, seed=99)
    p, conductor = predicted(plan, new, tmp_path, monkeypatch)
    seconds = np.zeros((len(new.names), len(new.ids)))
    for member in plan.members:
        seconds[new.names.index(member.name)] = conductor.seconds[member.name]
    work = {j: plan.member(new.names[j]).work_share * float(seconds[j].sum()) for j in candidate.seen}
    np.testing.assert_allclose(p, carry_out(fitted, candidate, new, seconds, work), rtol=0, atol=1e-12)
    assert any(pool.planned for pool in plan.pools) == own_blends
    assert all(0 < conductor.planned[new.names[j]].mean() < 1 for j in candidate.seen)
