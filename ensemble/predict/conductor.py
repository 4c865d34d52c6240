"""The conductor: starts, watches and cuts the jobs of a plan's schedule."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ensemble.plan import Job, Plan
from ensemble.pools.gate import mask_of, paid_for, spend
from ensemble.pools.patterns import gated_gain
from ensemble.predict.attempts import Setting
from ensemble.predict.board import Board
from ensemble.predict.deadline import Deadline
from ensemble.predict.job import JobRun, reason_of
from ensemble.predict.replan import (
    Claim,
    Pace,
    makespan,
    makespan_after,
    must_end_by,
    pool_gain,
    predicted_row_seconds,
    share_out,
)
from zoo.contracts import Say, ScoreRequest
from zoo.errors import ZooError
from zoo.tracking.spans import open_span

STALL_FACTOR = 4.0  # silence of this many times the expected one, margin included, is a hang
STALL_SHARE, SHORTEST_STALL_SECONDS = 0.05, 3.0  # but never less than this share of the budget, or these seconds
GUESSED_CHUNK_ROWS = 512  # where a stage has no such setting


class Conductor:
    """The jobs of one prediction. `tick` does what is due; everything else asks."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        characters: np.ndarray,
        usable: np.ndarray,
        setting: Setting,
        deadline: Deadline,
        *,
        given: Mapping[str, str],
        say: Say,
    ) -> None:
        """Prepare the jobs of the plan's schedule on these rows; nothing is started.

        `characters`: of each row's prompt and responses; `usable`: rows a stage can read, both (rows,) in the board's order.
        `given`: members whose tables are on the board already, and where from; their jobs do not run.
        """
        self.plan, self.board, self.deadline, self.say = plan, board, deadline, say
        self.characters, self._usable = characters, usable
        self.planned = {name: usable.copy() for name in board.members}
        self.seconds = {member.name: predicted_row_seconds(member, characters) for member in plan.members}
        self.runs: list[JobRun] = []
        for number, job in enumerate(plan.schedule):
            members = [plan.member(name) for name in job.members if name not in given]
            if members:
                rest = job.model_copy(update={"members": tuple(member.name for member in members)})
                self.runs.append(JobRun(rest, members, f"{setting.layout}job-{number:02d}", setting, board))
        self._gains: dict[tuple[str, ...], float] = {}
        self._dealt: dict[tuple[str, ...], list[np.ndarray]] = {}
        self._spare: dict[tuple[str, ...], list[np.ndarray]] = {}

    @property
    def finished(self) -> bool:
        return all(run.status == "ended" for run in self.runs)

    def kill(self) -> None:
        """End every job that still runs, at once."""
        for run in self.runs:
            run.kill()

    def recall(self) -> int:
        """Rows that earlier runs of the same command have scored already."""
        news = 0
        for run in self.runs:
            added, refused = run.recall(self.deadline.now())
            news += added
            for text in refused:
                self.say(text)
        return news

    def look(self) -> int:
        """Take in what the jobs' folders hold; how many rows.

        Nothing is changed there, whoever works in them now.
        """
        return sum(run.harvest(self.deadline.now()) for run in self.runs)

    def leave_out(self, impossible: Mapping[str, str]) -> None:
        """End the jobs that cannot run, before any starts.

        They are those named, and those whose request cannot be made. ZooError, for the first reason, where that leaves
        nothing that could say anything of a row.
        """
        now, reasons = self.deadline.now(), []
        for run in self.runs:
            why = next((impossible[name] for name in run.job.members if name in impossible), None) or run.cannot_run()
            if why is not None:
                run.skip(f"left out: {why}", now)
                self.say(f"{', '.join(run.job.members)} is left out: {why}")
                open_span().event("left out: cannot run here", now, members=", ".join(run.job.members))
                reasons.append(why)
        if reasons and self.finished and not any(self.board.has(name).any() for name in self.board.members):
            raise ZooError(reasons[0])

    def tick(self) -> int:
        """Do what is due; how many rows are news.

        Take in what has appeared, end what must end, start what can start. A job with which anything goes wrong is ended, and
        the others go on.
        """
        now, news = self.deadline.now(), 0
        for run in self.runs:
            if run.alive:
                try:
                    news += self._attend(run, now)
                except Exception as error:
                    run.kill()
                    run.skip(reason_of(error), now)
                    self._report_end(run)
        self._start_ready(now)
        return news

    def _attend(self, run: JobRun, now: float) -> int:
        """Do what is due for a job that has a process; how many rows are news."""
        told = set(run.rejected)
        news = run.harvest(now)
        self._reject({name: why for name, why in run.rejected.items() if name not in told}, now)
        run.poll(now)
        if not run.alive:
            self._report_end(run)
        self._watch(run, now)
        return news

    def _reject(self, reasons: dict[str, str], now: float) -> None:
        """Leave out members whose output broke its contract, in every replica."""
        for name, why in reasons.items():
            self.board.discard(name)
            self.say(f"{name} is left out: {why}")
            for run in self.runs:
                if name in run.job.members:
                    run.rejected.setdefault(name, why)
                    if not run.trusted:
                        run.stop("its output cannot be trusted", now, self.deadline.grace_seconds)

    def _report_end(self, run: JobRun) -> None:
        names = ", ".join(run.job.members)
        if run.status == "waiting":
            open_span().event("started once more", self.deadline.now(), members=names)
            self.say(f"{names}: {run.death}; it is started once more")
        elif run.note and run.trusted:
            self.say(f"{names}: {run.note}; its finished rows stay")
        elif run.trusted:
            self.say(f"{names}: done, {len(run.rows):,} rows in {run.ended - run.started:.1f} s")

    # --- making way -------------------------------------------------------------------------------------------------

    def _watch(self, run: JobRun, now: float) -> None:
        """Stop a job whose time is up, or that has been silent for too long."""
        if run.status != "running" or run.pace is None:
            return
        expected = run.pace.expected_silence() * self.plan.margin
        patience = max(STALL_FACTOR * expected, STALL_SHARE * self.deadline.budget_seconds, SHORTEST_STALL_SECONDS)
        if run.pace.silence(now) > patience:
            why = f"no sign of life for {run.pace.silence(now):.0f} s where {expected:.1f} s were expected; taken for hung"
            run.stop(why, now, self.deadline.grace_seconds)
        elif now >= self.ends_by(run, now):
            why = f"late: its time was up with {len(run.missing(run.rows)):,} of {len(run.rows):,} rows to go"
            run.stop(why, now, self.deadline.grace_seconds)

    def ends_by(self, run: JobRun, now: float) -> float:
        """Seconds since process start at which a job has to make way."""
        planned_end = (run.started if run.pace or run.death else now) + self.planned_seconds(run) * self.plan.margin
        return must_end_by(self.claim(run, now), planned_end, self._waiting(run, now), self.deadline.work_ends)

    def _waiting(self, run: JobRun, now: float) -> list[Claim]:
        """What others that have not started claim, if they can still load."""
        left = self.deadline.work_ends - now
        others = [other for other in self.runs if other is not run and other.status == "waiting"]
        return [self.claim(other, now) for other in others if other.load_seconds < left]

    def claim(self, run: JobRun, now: float) -> Claim:
        """What a job still wants, and brings."""
        gain = self._pool_gain(run.job.members)
        if run.pace is None:
            rows = float(self._usable.sum()) * run.coverage * run.job.row_share
            return Claim(run.job, self.planned_seconds(run) * self.plan.margin, gain * rows)
        return Claim(run.job, run.pace.remaining(now), gain * len(run.missing(run.rows)))

    def _pool_gain(self, members: tuple[str, ...]) -> float:
        """Nats a row that members bring on top of those before them in the plan's order."""
        if members not in self._gains:
            place = min(self.board.members.index(name) for name in members)
            self._gains[members] = pool_gain(self.plan, self.board.members[:place], members)
        return self._gains[members]

    def _work(self, run: JobRun) -> np.ndarray:
        """Predicted seconds of each row of the file, for all members of the job."""
        work: np.ndarray = np.sum([self.seconds[name] for name in run.job.members], axis=0)
        return work

    def planned_seconds(self, run: JobRun) -> float:
        """Loading and rows as the plan prices them on this file, without the margin."""
        work = self._work(run)
        if run.pace is not None:
            return run.pace.load_seconds + run.pace.work_seconds
        return run.load_seconds + float(work[self._usable].sum()) * run.work_share * run.job.row_share

    def predicted_seconds(self) -> float:
        """Seconds from process start to submission, as the plan prices its schedule on this file.

        The margin is not included.
        """
        return self.plan.overhead_seconds + makespan([Claim(run.job, self.planned_seconds(run), 0.0) for run in self.runs])

    # --- starting ---------------------------------------------------------------------------------------------------

    def _start_ready(self, now: float) -> None:
        """Start jobs of the current phase whose devices are free, in the plan's order."""
        open_runs = [run for run in self.runs if run.status != "ended"]
        phase = min((run.job.phase for run in open_runs), default=0)
        busy = {device for run in open_runs if run.status != "waiting" for device in _devices(run.job)}
        waiting = [run for run in open_runs if run.status == "waiting" and run.job.phase == phase]
        for run in sorted(waiting, key=lambda run: run.job.start_seconds):
            if busy & _devices(run.job):
                busy |= _devices(run.job)  # it comes next here: a narrower job behind it must not starve it
                continue
            self._start(run, now)
            if run.status == "running":
                busy |= _devices(run.job)

    def _start(self, run: JobRun, now: float) -> None:
        names, load = ", ".join(run.job.members), run.load_seconds
        end = self.ends_by(run, now) if run.death else self.deadline.work_ends
        rows = self._rows_for(run, now)
        todo = run.missing(rows)
        if len(todo) and now + load >= end:
            run.skip(f"loading alone takes {load:.1f} s and {max(0.0, end - now):.1f} s are left", now)
            left = max(0.0, end - now)
            open_span().event("left out: no time to load", now, members=names, load_seconds=load, left_seconds=left)
            self.say(f"{names}: left out, {run.note}")
            return
        work = self._work(run)
        asked = run.members[0].request
        chunk_rows = asked.spec.chunk_rows if isinstance(asked, ScoreRequest) else GUESSED_CHUNK_ROWS
        piece = float(work[todo].mean()) * chunk_rows if len(todo) else 0.0
        total = float(work[todo].sum())
        pace = Pace(load, total, self.plan.margin, min(piece, total))
        try:
            run.start(rows, {name: self.seconds[name] for name in run.job.members}, pace, now)
        except Exception as error:
            run.died(f"cannot be started: {reason_of(error)}", now)
            self._report_end(run)
        if run.status == "running":
            self.say(f"{names}: started on {len(todo):,} rows, {load + total:.1f} s by the plan")

    def _rows_for(self, run: JobRun, now: float) -> np.ndarray:
        """The rows of a job in the order of their value.

        First those the plan gives it, then more of them if time is left over.
        """
        key = run.job.members
        if key not in self._dealt:
            self._deal(run)
        replica = run.job.replica if run.job.replica < len(self._dealt[key]) else 0
        rows, spare = self._dealt[key][replica], self._spare[key][replica]
        work = self._work(run)
        needed = run.load_seconds + float(work[rows].sum())
        free = self.deadline.work_ends - now - makespan_after(run.job, self._waiting(run, now)) - needed * self.plan.margin
        more = spare[: paid_for(work[spare], free / self.plan.margin)]
        if len(more):
            open_span().event("more rows than planned", now, members=", ".join(key), planned=len(rows), more=len(more))
        return np.concatenate([rows, more])

    def _deal(self, run: JobRun) -> None:
        """Choose a job's rows by value within what the plan pays for, and share them out."""
        work, usable = self._work(run), np.flatnonzero(self._usable)
        gain = self._row_gain(run)[usable]
        order, count = spend(gain, work[usable], run.work_share * float(work[usable].sum()))
        chosen, left = usable[order[:count]], order[count:]
        spare = usable[left[gain[left] > 0]]
        for name in run.job.members:
            self.planned[name] = mask_of(chosen, len(self._usable))
        replicas = sorted((r.job.replica, r.job.row_share) for r in self.runs if r.job.members == run.job.members)
        shares = [share for _, share in replicas]
        self._dealt[run.job.members] = share_out(chosen, work[chosen], shares)
        self._spare[run.job.members] = share_out(spare, work[spare], shares)

    def _row_gain(self, run: JobRun) -> np.ndarray:
        """Predicted nats (rows,) that the job's members bring.

        The gate predicts them where there is one; else they are alike for all rows. A row that none of the members before could
        score has most to gain.
        """
        gate = next((member.gate for member in run.members if member.gate is not None), None)
        alone = max(pool_gain(self.plan, (), run.job.members), 1e-6)
        if gate is None or run.coverage >= 1.0:
            return np.full(len(self._usable), alone)
        tables, has = self.board.tables()
        return gated_gain(gate, self.plan.pools, tables, has, self.characters, otherwise=alone)


def _devices(job: Job) -> set[int]:
    return set(job.devices) or {0}
