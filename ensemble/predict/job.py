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

from ensemble.plan import Job, PlanMember
from ensemble.predict.attempts import Setting, attempts, new_attempt, reopen
from ensemble.predict.board import Board
from ensemble.predict.replan import Pace
from zoo.contracts import Request
from zoo.errors import ZooError
from zoo.pipeline.runner import stage_error, start_stage
from zoo.scores.tables import CHUNKS, SCORES, read_scores
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
    folder: Path
    setting: Setting
    board: Board
    status: Status = "waiting"
    note: str = ""  # why it ended before its rows were done
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pace: Pace | None = None
    started: float = 0.0
    ended: float = 0.0
    rejected: dict[str, str] = field(default_factory=dict)
    _work: dict[str, np.ndarray] = field(default_factory=dict)  # member -> predicted seconds of each row of the file
    _process: subprocess.Popen[bytes] | None = None
    _request: Request | None = None
    _attempt: Path | None = None
    _files: set[Path] = field(default_factory=set)
    _ids: dict[Path, set[str]] = field(default_factory=dict)
    _kill_at: float = float("inf")

    @property
    def alive(self) -> bool:
        """Whether it has a process: it runs, or was asked to end and has not."""
        return self.status in ("running", "stopping")

    @property
    def trusted(self) -> list[PlanMember]:
        return [member for member in self.members if member.name not in self.rejected]

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows`, in their order, that some member has neither scored nor refused."""
        if not self.trusted or not len(rows):
            return rows[:0]
        answered = np.all([self.board.answered(member.name) for member in self.trusted], axis=0)
        missing: np.ndarray = rows[~answered[rows]]
        return missing

    def start(self, rows: np.ndarray, work: dict[str, np.ndarray], pace: Pace, now: float) -> None:
        """Launch the stage for `rows`, or end at once where nothing is missing.

        Row numbers in the order of their value.
        """
        self.rows, self._work, self.pace, self.started = rows, work, pace, now
        todo = self.missing(rows)
        if not len(todo):
            self._end(now)
            return
        self._attempt = self._open(todo)
        pace.start(now)
        environment = only_gpus(self.setting.visible_gpus[device] for device in self.job.devices if self.setting.visible_gpus)
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
        for attempt in attempts(self.folder)[-1:]:
            self._request = reopen(attempt, self.trusted, wanted, self.setting)
            if self._request:
                return attempt
        unfinished = [member for member in self.trusted if not self.board.answered(member.name)[todo].all()]
        attempt, self._request = new_attempt(self.folder, unfinished, wanted, self.setting)
        return attempt

    def harvest(self, now: float) -> int:
        """Take in the chunk files that have appeared; how many rows are news.

        A member whose output breaks its contract is forgotten and left out.
        """
        news = 0
        for member in self.trusted:
            try:
                news += sum(self._harvest(member, attempt, now) for attempt in attempts(self.folder))
            except BadOutput as error:
                self.rejected[member.name] = str(error)
                self.board.discard(member.name)
        return news

    def _harvest(self, member: PlanMember, attempt: Path, now: float) -> int:
        folder, news = attempt / member.variant.slug, 0
        if not folder.exists():
            return 0
        seen = self._ids.setdefault(folder, set())
        for file in [*sorted((folder / CHUNKS).glob("[0-9]*.parquet")), folder / SCORES]:
            if file in self._files or not file.exists():
                continue
            try:
                frame = read_scores(file)
                again = seen & set(frame["id"]) if file.name != SCORES else set()
                if again:
                    raise ZooError(f"{len(again)} ids are in another chunk too: {', '.join(sorted(again)[:3])}")
                before = self.board.answered(member.name)
                added = self.board.add(member.name, frame)
            except (ZooError, OSError) as error:
                raise BadOutput(str(error).removeprefix(f"{file}: ").removesuffix("; score them again")) from error
            seen |= set(frame["id"])
            self._files.add(file)
            news += added
            if added and self.pace is not None and member.name in self._work:
                rows = self.board.answered(member.name) & ~before
                self.pace.progress(now, float(self._work[member.name][rows].sum()))
        return news

    def set_rejected_aside(self) -> None:
        """Rename the folders of rejected output once no process writes there.

        The same command then asks again instead of reading on.
        """
        for member in self.members:
            if member.name not in self.rejected:
                continue
            for folder in [attempt / member.variant.slug for attempt in attempts(self.folder)]:
                taken = len(list(folder.parent.glob(f"{folder.name}.rejected-*")))
                with suppress(OSError):
                    folder.rename(folder.with_name(f"{folder.name}.rejected-{taken}"))

    def recall(self, now: float) -> int:
        """Take in what earlier runs of the same command left, before it starts.

        What was rejected then is asked for again.
        """
        news = self.harvest(now)
        if self.rejected:
            self.set_rejected_aside()
            self.rejected, self._files, self._ids = {}, set(), {}
        return news

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
            self.note = str(stage_error(self._request, self._attempt, code))
        elif not self.note and len(self.missing(self.rows)):
            self.note = f"ended with {len(self.missing(self.rows)):,} rows left out"
        self._end(now)

    def _end(self, now: float) -> None:
        self.status, self.ended = "ended", now
        self.set_rejected_aside()

    def skip(self, why: str, now: float) -> None:
        """End a job that never started."""
        self.note = why
        self._end(now)

    def stop(self, why: str, now: float, grace_seconds: float) -> None:
        """Ask the process to end, with SIGKILL to follow; finished chunks stay."""
        if self.status == "running":
            self.status, self.note, self._kill_at = "stopping", why, now + grace_seconds
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all it has started, at once."""
        if self._process is not None and self.status != "ended":
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
