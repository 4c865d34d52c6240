"""One job of the schedule as a process: its start, its chunk files, its end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from ensemble.plan import Job, PlanMember
from ensemble.predict.attempts import Setting, attempts, job_request, listed_ids, new_attempt, reopen
from ensemble.predict.board import Board
from ensemble.predict.replan import Pace
from ensemble.predict.traced import JobTrace
from zoo.contracts import Input, Request, first_fault
from zoo.errors import ZooError
from zoo.pipeline.runner import stage_error, start_stage
from zoo.pipeline.runners.chosen import CHOSEN
from zoo.scores.tables import CHUNKS, SCORES, read_scores
from zoo.settings import interpreter
from zoo.targets import only_gpus

Status = Literal["waiting", "running", "stopping", "ended"]


class BadOutput(Exception):
    """A member's output breaks its contract, so none of it is used."""


@dataclass
class JobRun:
    """A job while it waits, runs and ends.

    `now` is seconds since the prediction's process started.
    """

    job: Job
    members: list[PlanMember]
    name: str  # of its folder in the workplace
    setting: Setting
    board: Board
    status: Status = "waiting"
    note: str = ""  # why it ended before its rows were done
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pace: Pace | None = None
    started: float = 0.0
    ended: float = 0.0
    rejected: dict[str, str] = field(default_factory=dict)
    death: str = ""  # why it had to be started a second time
    _work: dict[str, np.ndarray] = field(default_factory=dict)  # member -> predicted seconds of each row of the file
    _process: subprocess.Popen[bytes] | None = None
    _folders: list[Path] = field(default_factory=list)  # where its attempts are: in the home, and elsewhere if that is full
    _request: Request | None = None
    _attempt: Path | None = None
    _files: set[Path] = field(default_factory=set)
    _ids: dict[Path, set[str]] = field(default_factory=dict)
    _kill_at: float = float("inf")

    def __post_init__(self) -> None:
        self._trace = JobTrace(self.job.members)
        self._folders.append(self.setting.place.folder / self.name)

    @property
    def alive(self) -> bool:
        """Whether it has a process: it runs, or was asked to end and has not."""
        return self.status in ("running", "stopping")

    @property
    def trusted(self) -> list[PlanMember]:
        return [member for member in self.members if member.name not in self.rejected]

    @property
    def load_seconds(self) -> float:
        """Of one load, by the plan."""
        return max(member.cost.load_seconds for member in self.members)

    @property
    def coverage(self) -> float:
        """Share of the rows that the plan gives it."""
        return max(1.0 if member.gate is None else member.coverage for member in self.members)

    @property
    def work_share(self) -> float:
        """Share of the work on all rows that the plan pays for."""
        shares = (m.coverage if m.work_share is None else m.work_share for m in self.members)
        return max(1.0 if m.gate is None else share for m, share in zip(self.members, shares, strict=True))

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows`, in their order, that some member has neither scored nor refused."""
        if not self.trusted or not len(rows):
            return rows[:0]
        answered = np.all([self.board.answered(member.name) for member in self.trusted], axis=0)
        missing: np.ndarray = rows[~answered[rows]]
        return missing

    def cannot_run(self) -> str | None:
        """Why the members' request cannot be made, or started here; None where it can."""
        try:
            interpreter(job_request(self.members, Input(fingerprint=""), self.setting).stage)
        except Exception as error:  # whatever is wrong with one member is no matter of the others
            return reason_of(error)
        return None

    def start(self, rows: np.ndarray, work: dict[str, np.ndarray], pace: Pace, now: float) -> None:
        """Launch the stage for `rows`, or end at once where nothing is missing.

        Row numbers in the order of their value.
        """
        self.rows, self._work, self.pace = rows, work, pace
        self.started = self.started if self.death else now
        todo = self.missing(rows)
        if not len(todo):
            self._end(now)
            return
        self._attempt = self._open(todo)
        pace.start(now)
        self._trace.started(now, self._attempt, rows=len(todo), seconds_by_plan=pace.load_seconds + pace.work_seconds)
        devices = only_gpus(self.setting.visible_gpus[device] for device in self.job.devices if self.setting.visible_gpus)
        environment = {**devices, CHOSEN: "local"}  # the plan's budget is of this machine
        keep_open = () if self.setting.lock is None else (self.setting.lock,)
        assert self._request is not None
        with (self._attempt / "progress.log").open("ab") as terminal:
            self._process = start_stage(
                self._request, self._attempt, keep_open=keep_open, environment=environment, terminal=terminal, own_group=True
            )
        self.status = "running"

    def _open(self, todo: np.ndarray) -> Path:
        """Go on with the last attempt if its list holds all that is to do, else make a new one."""
        wanted = [self.board.ids[row] for row in todo]
        folder = self.setting.place.folder_for(self.name)
        if folder not in self._folders:
            self._folders.append(folder)
        for attempt in attempts(folder)[-1:]:
            self._request = reopen(attempt, self.trusted, wanted, self.setting)
            if self._request:
                return attempt
        unfinished = [member for member in self.trusted if not self.board.answered(member.name)[todo].all()]
        attempt, self._request = new_attempt(folder, unfinished, wanted, self.setting)
        return attempt

    def harvest(self, now: float) -> int:
        """Take in the chunk files that have appeared; how many rows are news.

        A member whose output breaks its contract is forgotten and left out.
        """
        news = 0
        for member in self.trusted:
            try:
                news += sum(self._harvest(member, attempt, now) for attempt in self._attempts())
            except BadOutput as error:
                self.rejected[member.name] = str(error)
                self._trace.event("output refused", now, member=member.name)
                self.board.discard(member.name)
        return news

    def _attempts(self) -> list[Path]:
        return [attempt for folder in self._folders for attempt in attempts(folder)]

    def _harvest(self, member: PlanMember, attempt: Path, now: float) -> int:
        return sum(self._take(member, attempt, file, now) for file in self._unread(member, attempt))

    def _unread(self, member: PlanMember, attempt: Path) -> list[Path]:
        """Tables of a member that were not taken in yet: chunks by number, then the whole."""
        folder = attempt / member.variant.slug
        files = [*sorted((folder / CHUNKS).glob("[0-9]*.parquet")), folder / SCORES]
        return [file for file in files if file not in self._files and file.exists()]

    def _take(self, member: PlanMember, attempt: Path, file: Path, now: float) -> int:
        """Take in one table; how many rows are news. BadOutput, and nothing is taken, where any of its rows cannot be right."""
        seen = self._ids.setdefault(attempt / member.variant.slug, set())
        try:
            frame = read_scores(file)
            ids = set(frame["id"])
            again = seen & ids if file.name != SCORES else set()
            if again:
                raise ZooError(f"{len(again)} ids are in another chunk too: {', '.join(sorted(again)[:3])}")
            before = self.board.answered(member.name)
            if unasked := ids & set(self.board.ids) - listed_ids(attempt):
                raise ZooError(f"{len(unasked)} ids were not asked for: {', '.join(sorted(unasked)[:3])}")
            added = self.board.add(member.name, frame)
        except Exception as error:  # whatever a table is that cannot be read as one
            raise BadOutput(reason_of(error).removeprefix(f"{file}: ").removesuffix("; score them again")) from error
        seen |= ids
        self._files.add(file)
        if added and self.pace is not None and member.name in self._work:
            rows = self.board.answered(member.name) & ~before
            self._trace.took(member.name, now, int(rows.sum()))
            self.pace.progress(now, float(self._work[member.name][rows].sum()))
        return added

    def set_rejected_aside(self) -> None:
        """Rename the folders of rejected output once no process writes there.

        The same command then asks again instead of reading on.
        """
        for member in self.members:
            if member.name not in self.rejected:
                continue
            for folder in [attempt / member.variant.slug for attempt in self._attempts()]:
                _rename_aside(folder)

    def recall(self, now: float) -> tuple[int, list[str]]:
        """Take in what earlier runs of the same command left, before it starts.

        How many rows that is, and what was no good. A table that cannot be right is renamed by itself, so that its rows alone
        are asked for again.
        """
        news, refused = 0, []
        for member in self.members:
            for attempt in self._attempts():
                for file in self._unread(member, attempt):
                    try:
                        news += self._take(member, attempt, file, now)
                    except BadOutput as error:
                        refused.append(f"{file}: {error}; its rows are scored again")
                        _rename_aside(file)
        return news, refused

    def poll(self, now: float) -> None:
        """Notice the end of the process; send the SIGKILL that follows a SIGTERM without effect."""
        if self._process is None or self.status == "ended":
            return
        code = self._process.poll()
        if code is None:
            if now >= self._kill_at:
                self.kill()
            return
        self._signal(signal.SIGKILL)  # what it started and left behind: engines have processes of their own
        self.harvest(now)
        if code != 0 and not self.note:
            assert self._request is not None and self._attempt is not None
            self.died(str(stage_error(self._request, self._attempt, code)), now)
            return
        if not self.note and len(self.missing(self.rows)):
            self.note = f"ended with {len(self.missing(self.rows)):,} rows left out"
        self._end(now)

    def died(self, why: str, now: float) -> None:
        """The end of a process that nobody asked to end, or whose start failed.

        The first time it waits to be started again.
        """
        self._process = None
        self._trace.ended(now, "its process ended by itself")
        if self.death or not len(self.missing(self.rows)):
            self.note = why
            self._end(now)
        else:
            self.status, self.death, self.pace = "waiting", why, None

    def _end(self, now: float) -> None:
        self.status, self.ended = "ended", now
        self._trace.ended(now)
        self.set_rejected_aside()

    def skip(self, why: str, now: float) -> None:
        """End a job that waits to be started, for the first time or again."""
        self.note = f"{self.death}; not started again: {why}" if self.death else why
        self._end(now)

    def stop(self, why: str, now: float, grace_seconds: float) -> None:
        """Ask the process to end, with SIGKILL to follow; finished chunks stay."""
        if self.status == "running":
            self.status, self.note, self._kill_at = "stopping", why, now + grace_seconds
            self._trace.event("asked to end", now, why=why)
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all it has started, at once."""
        if self._process is not None and self.status != "ended":
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def reason_of(error: Exception) -> str:
    """What went wrong in one line, whatever raised it."""
    if isinstance(error, ZooError):
        return str(error)
    if isinstance(error, ValidationError):
        return first_fault(error)
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _rename_aside(path: Path) -> None:
    """Give output that is not used a name that no one reads."""
    taken = len(list(path.parent.glob(f"{path.name}.rejected-*")))
    with suppress(OSError):
        path.rename(path.with_name(f"{path.name}.rejected-{taken}"))
