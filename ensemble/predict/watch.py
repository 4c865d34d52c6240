"""The progress display of a prediction: rows, speed, predicted end, what is skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import amount, printable

if TYPE_CHECKING:
    from ensemble.predict.conductor import Conductor
    from ensemble.predict.deadline import Deadline

LONGEST_INTERVAL_SECONDS = 10.0  # between two reports where no terminal shows them, as a stage's own
REPORTS_A_BUDGET = 20


@dataclass(frozen=True)
class JobStatus:
    """One running job, in rows and in seconds since process start."""

    name: str
    done: int
    rows: int
    rows_per_second: float
    predicted_end: float
    ends_by: float
    skipped: int

    def line(self) -> str:
        """`gemma-2-9b@ab: 512 of 2,000 rows, 3.1 a second, ends at 12:30; 200 rows will be skipped`."""
        loading = "loading" if not self.done else f"{self.rows_per_second:,.1f} a second"
        end = clock(min(self.predicted_end, self.ends_by))
        text = f"{self.name}: {self.done:,} of {self.rows:,} rows, {loading}, ends at {end}"
        return text + (f"; {amount(self.skipped, 'row')} will be skipped" if self.skipped else "")


def clock(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    whole = round(max(0.0, seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def job_statuses(conductor: Conductor, now: float) -> list[JobStatus]:
    """The jobs that run now."""
    found = []
    for run in conductor.runs:
        if run.status != "running" or run.pace is None:
            continue
        missing = run.missing(run.rows)
        done = len(run.rows) - len(missing)
        ends_by = conductor.ends_by(run, now)
        work = np.cumsum(np.sum([conductor.seconds[name][missing] for name in run.job.members], axis=0))
        loading = max(0.0, run.pace.remaining(now) - run.pace.ratio(now) * float(work[-1])) if len(missing) else 0.0
        skipped = int((now + loading + run.pace.ratio(now) * work > ends_by).sum())
        seconds = max(now - run.started, 1e-6)
        end = now + run.pace.remaining(now)
        found.append(JobStatus(", ".join(run.job.members), done, len(run.rows), done / seconds, end, ends_by, skipped))
    return found


class Display:
    """Progress on stderr: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self, deadline: Deadline) -> None:
        from rich.console import Console
        from rich.live import Live

        self._deadline = deadline
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        self._interval = min(LONGEST_INTERVAL_SECONDS, deadline.budget_seconds / REPORTS_A_BUDGET)
        self._last = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the live table within the block, where there is a terminal."""
        if self._live is None:
            yield
            return
        with self._live:
            yield

    def say(self, text: str) -> None:
        """One event, with the time since process start."""
        self._console.print(
            f"{clock(self._deadline.now())} of {clock(self._deadline.budget_seconds)}  {printable(text)}", markup=False
        )

    def update(self, statuses: Sequence[JobStatus]) -> None:
        """Show where the running jobs stand."""
        now = self._deadline.now()
        if self._live is not None:
            left = f"{clock(self._deadline.budget_seconds - now)} left"
            self._live.update("\n".join([left, *(f"  {status.line()}" for status in statuses)]), refresh=True)
        elif now - self._last >= self._interval:
            self._last = now
            for status in statuses:
                self.say(status.line())
