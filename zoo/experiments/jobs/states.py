"""How far a job is, by the store, by what workers noted, and by what stages say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.contracts import Contract
from zoo.experiments.jobs.tasks import Job, Task, is_made
from zoo.store import LIVE, LOG, PARTIAL, write_atomic
from zoo.store.leases import LAPSE_SECONDS, LEASES, living
from zoo.tracking.live import read_lines

NOTES = "notes"
TAIL_BYTES = 1 << 16  # of what a stage says of itself: enough for its last words
State = Literal["done", "running", "queued", "waiting", "failed", "not run"]
OPEN: tuple[State, ...] = ("running", "queued", "waiting")


class Note(Contract):
    """What a worker says of a task.

    `since` and `ended` in seconds since 1970; `step`: what a training went on from; `deaths`: workers that ended at it since it
    last got on, and did not say why.
    """

    state: Literal["running", "done", "failed"]
    host: str
    holder: str
    since: float
    ended: float | None = None
    step: int = -1
    deaths: int = 0
    message: str = ""


@dataclass(frozen=True)
class Status:
    """A task and how far it is.

    `note`: where it runs or ran; `why`: what it waits for, or what failed.
    """

    task: Task
    state: State
    note: Note | None = None
    why: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


def note_path(folder: Path, task: Task) -> Path:
    return folder / NOTES / f"{task.name}.json"


def write_note(folder: Path, task: Task, note: Note) -> None:
    (folder / NOTES).mkdir(exist_ok=True)
    write_atomic(note_path(folder, task), note.model_dump_json())


def read_note(folder: Path, task: Task) -> Note | None:
    """What was noted of a task last; None where nothing is, or it cannot be read."""
    with suppress(OSError, ValueError):
        return Note.model_validate_json(note_path(folder, task).read_text())
    return None


def forget_failures(folder: Path, job: Job) -> None:
    """Have what failed tried again."""
    for task in job.tasks:
        note = read_note(folder, task)
        if note is not None and note.state == "failed":
            note_path(folder, task).unlink(missing_ok=True)


def statuses(folder: Path, job: Job, store: Path, *, lapse_seconds: float = LAPSE_SECONDS) -> list[Status]:
    """How far each task of a job is, in the job's order."""
    alive = living(folder / LEASES, lapse_seconds)
    found: dict[str, Status] = {}
    for task in job.tasks:  # what a task needs comes before it
        found[task.name] = _status(folder, task, store, found, alive)
    return list(found.values())


def _status(folder: Path, task: Task, store: Path, found: dict[str, Status], alive: Collection[str]) -> Status:
    note = read_note(folder, task)
    if is_made(store, task.name):
        logs = note is not None and note.state == "running" and note.holder in alive
        return Status(task, "done", note, "its worker logs it before it takes the next" if logs else "")
    if note is not None and note.state == "failed":
        return Status(task, "failed", note, note.message)
    needs = [found[name] for name in task.needs]
    if lost := next((one for one in needs if one.state in ("failed", "not run")), None):
        return Status(task, "not run", None, f"needs {_called(lost.task, task)}")
    if note is not None and note.state == "running":
        if note.holder in alive:
            return Status(task, "running", note)
        return Status(task, "queued", None, f"its worker on {note.host} fell silent; another goes on")
    if left := [_called(one.task, task) for one in needs if one.state != "done"]:
        return Status(task, "waiting", None, f"for {', '.join(left)}")
    return Status(task, "queued")


def _called(needed: Task, by: Task) -> str:
    """What a task that another reads is called beside it: a name has no room on a terminal, and says less."""
    stage = needed.request.stage
    if needed.chain == by.chain:
        return f"its {stage}"
    return f"{stage} of {needed.title}{'' if needed.fold is None else f', fold {needed.fold}'}"


def open_chains(found: Sequence[Status]) -> Counter[int]:
    """How many chains have something left, by the cards that it takes."""
    cards: dict[tuple[str, int | None], int] = {}
    for status in found:
        if status.is_open:
            cards[status.task.chain] = max(cards.get(status.task.chain, 0), status.task.gpus)
    return Counter(cards.values())


def in_order(found: Sequence[Status]) -> Iterator[Status]:
    """What may be begun, the most pressing first.

    That of a chain that has begun before that of a new one, and what takes more cards before what takes fewer; else the order
    in which it was given.
    """
    ready = [one for one in found if one.state == "queued"]
    begun = {one.task.chain for one in found if one.state in ("done", "running")} | {one.task.chain for one in ready if one.why}
    return iter(sorted(ready, key=lambda one: (one.task.chain not in begun, -one.task.gpus)))


def progress_of(store: Path, name: str) -> str:
    """What a running stage says of itself last: time left, how far it is, how fast.

    Empty where it says nothing.
    """
    path = store / PARTIAL / name / LIVE
    with suppress(OSError):
        _, said = read_lines(path, max(0, path.stat().st_size - TAIL_BYTES))
        last: dict[str, Any] = next((line for line in reversed(said) if "progress" in line or "note" in line), {})
        return ", ".join(str(last[key]) for key in ("progress", "note", "more") if last.get(key))
    return ""


def log_of(store: Path, name: str) -> tuple[Path, str]:
    """Where an unfinished stage's log is, and the last line of it."""
    path = store / PARTIAL / name / LOG
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return path, lines[-1][:300] if lines else ""
    return path, ""
