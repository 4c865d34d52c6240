"""A job as people see it: a table of its tasks, and how it changes while somebody watches."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.experiments.jobs.states import State, Status, log_of, progress_of, statuses
from zoo.experiments.jobs.tasks import STOP, Job, jobs_in, read_job
from zoo.report.text import Cell, Column, Table, as_budget, as_text
from zoo.store import MANIFEST, leave_out

LOOK_SECONDS = 1.0
SAY_SECONDS = 30.0  # between two lines on what runs, where no terminal shows the table
ORDER: tuple[State, ...] = ("running", "failed", "queued", "waiting", "not run", "done")


@dataclass(frozen=True)
class Summary:
    """A job in one line: how many of its tasks are where."""

    job: Job
    counts: Mapping[str, int]

    @property
    def is_over(self) -> bool:
        return not any(self.counts.get(state) for state in ("running", "queued", "waiting"))


def summaries(store: Path) -> Iterator[Summary]:
    """The jobs of a store; one that cannot be read is told, and hides no other."""
    for folder in jobs_in(store):
        try:
            job = read_job(folder)
        except ZooError as error:
            leave_out(error)
            continue
        yield Summary(job, Counter(status.state for status in statuses(folder, job, store)))


def jobs_table(found: Sequence[Summary]) -> Table:
    columns = [
        Column("job"),
        Column("of", prose=True, drop=2),
        Column("begun", drop=3),
        Column("tasks", form=","),
        *(Column(state, state.replace(" ", "_"), ",", drop=1 if state in ("waiting", "not run") else 0) for state in ORDER),
    ]
    rows: list[list[Cell]] = [
        [
            one.job.name,
            ", ".join(one.job.titles),
            one.job.created_at.strftime("%F %H:%M"),
            len(one.job.tasks),
            *(one.counts.get(state, 0) for state in ORDER),
        ]
        for one in found
    ]
    return Table(columns, rows)


def tasks_table(found: Sequence[Status], store: Path) -> Table:
    """A line a task: what runs comes first, then what failed."""
    columns = [
        Column("state"),
        Column("run"),
        Column("fold"),
        Column("stage"),
        Column("host", drop=1),
        Column("for", "seconds", as_budget, drop=2),
        Column("how far, or why", "what", prose=True),
        Column("task", drop=3),
    ]
    shown = sorted(found, key=lambda one: ORDER.index(one.state))
    return Table(columns, [_row(one, store) for one in shown])


def _row(one: Status, store: Path) -> list[Cell]:
    task, note = one.task, one.note
    host = note.host if note else None
    return [one.state, task.title, task.fold, task.request.stage, host, _seconds(one, store), _told(one, store), task.name]


def _seconds(one: Status, store: Path) -> float | None:
    """How long a task runs, or ran until its artifact was there, which is logged after it; None where nobody knows."""
    if one.note is None:
        return None
    until = time.time() if one.state == "running" else one.note.ended
    with suppress(OSError):  # of what is not done
        until = (store / one.task.name / MANIFEST).stat().st_mtime
    return round(until - one.note.since, 1) if until and until >= one.note.since else None


def _told(one: Status, store: Path) -> str:
    if one.state == "running":
        return progress_of(store, one.task.name) or "starting"
    if one.state != "failed":
        return one.why
    path, last = log_of(store, one.task.name)
    last = "" if last in one.why or (one.why and one.why in last) else last  # a stage's last word often is what failed
    more = "; ".join(part for part in (last, f"log: {path}" if path.exists() else "") if part)
    return one.why if not more or str(path) in one.why else f"{one.why}; {more}"


def counted(found: Sequence[Status]) -> str:
    """`3 done, 2 running` of a job's tasks."""
    counts = Counter(status.state for status in found)
    return ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])


def follow(job: Job, folder: Path, store: Path, *, say: Say, keep_up: Callable[[], str]) -> list[Status]:
    """Show a job until it is over; how its tasks ended.

    On a terminal as a table that changes, else a line a change. `keep_up` is called at every look, and tells why nothing more
    will be done, where that is so. ZooError then, and where somebody stops the job.
    """
    with _shown(store, say) as show:
        while True:
            found = statuses(folder, job, store)
            show(found)
            if not any(status.is_open for status in found):
                return found
            if (folder / STOP).exists():
                raise ZooError(f"{job.name} was stopped ({counted(found)}); the same command goes on", exit_code=1)
            if why := keep_up():
                raise ZooError(f"{job.name}: {why} ({counted(found)}); the same command goes on", exit_code=1)
            time.sleep(LOOK_SECONDS)


@contextmanager
def _shown(store: Path, say: Say) -> Iterator[Callable[[Sequence[Status]], None]]:
    if not sys.stderr.isatty():
        yield _Lines(store, say)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False) as live:

        def show(found: Sequence[Status]) -> None:
            page = f"{counted(found)}\n\n{_page(found, store)}"  # the sum first: a terminal may have no room for all tasks
            live.update(Text(page, no_wrap=True, overflow="ellipsis"), refresh=True)

        yield show


def _page(found: Sequence[Status], store: Path) -> str:
    """What a terminal has room for: what is not done."""
    return as_text(tasks_table([one for one in found if one.state != "done"], store))


class _Lines:
    """A line for each task that changes, and every half a minute what runs."""

    def __init__(self, store: Path, say: Say) -> None:
        self._store, self._say = store, say
        self._seen: dict[str, Any] = {}
        self._said = time.monotonic()

    def __call__(self, found: Sequence[Status]) -> None:
        done = sum(one.state == "done" for one in found)
        for one in found:
            now = (one.state, one.note.host if one.note else "")
            if self._seen.get(one.task.name) != now and one.state not in ("queued", "waiting") and self._seen:
                self._tell(one, f"{done} of {len(found)} done")
            self._seen[one.task.name] = now
        if time.monotonic() - self._said >= SAY_SECONDS:
            for one in found:
                if one.state == "running":
                    self._tell(one, _told(one, self._store))

    def _tell(self, one: Status, more: str) -> None:
        task = one.task
        whose = task.title if task.fold is None else f"{task.title}, fold {task.fold}"
        what = f"{one.state} on {one.note.host}" if one.note and one.note.host else one.state
        if one.state == "failed":
            more = _told(one, self._store)
        self._say(f"{whose}: {task.request.stage} {what} ({more})")
        self._said = time.monotonic()


def named(store: Path, name: str) -> Path:
    """The folder of the job that a name, or the beginning of one, means.

    ZooError where there is none, or more than one.
    """
    found = [folder for folder in jobs_in(store) if folder.name.startswith(name)]
    exact = [folder for folder in found if folder.name == name] or found
    if len(exact) != 1:
        there = ", ".join(folder.name for folder in (found or jobs_in(store))) or "none"
        raise ZooError(f"{name}: {'several jobs begin so' if found else 'no such job'}; there are {there}")
    return exact[0]
