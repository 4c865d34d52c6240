"""A job: stages of many chains as tasks, files in a folder that all hosts see.

    .jobs/NAME/job.json      what is to be made: this file's `Job`
               host.json     what the host of the command says of itself, token: what all have to read
               notes/        a file a task: where it runs, how it ended (`zoo.experiments.jobs.states`)
               leases/       who has claimed which task
               logs/         what workers and the cluster say; stages write to their own

What a task makes is an artifact, so whether it is done the store says, whoever made it. A job's name follows from the names of
its artifacts: the same command comes back to the same job.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from zoo.contracts import Contract, Entry, Request, TrainRequest, first_fault, inputs_of
from zoo.errors import ZooError
from zoo.pipeline.runners.hosts import HostFacts, facts_here
from zoo.pipeline.stage_table import stage_of
from zoo.store import JOBS, MANIFEST, artifact_name, fingerprint, write_atomic

JOB, HOST, TOKEN, STOP, LOGS = "job.json", "host.json", "token", "stop", "logs"
BROUGHT = ("fetch", "adopt")  # stages that the command does itself: they take its network, its tokens and its own folders


@dataclass(frozen=True)
class Asked:
    """A request of a chain: `title` and `fold` say whose."""

    title: str
    fold: int | None
    entry: Entry
    request: Request


class Task(Contract):
    """One stage of a job.

    `name`: the artifact that it makes; `needs`: those of other tasks that it reads; `gpus`: the cards of one host that it takes
    where hosts have any; `entry`: its place in the job's.
    """

    name: str
    title: str
    fold: int | None
    entry: int
    gpus: int
    needs: tuple[str, ...]
    request: Annotated[Request, Field(discriminator="stage")]

    @property
    def chain(self) -> tuple[str, int | None]:
        """What it is a part of: a chain that has begun comes before a new one."""
        return self.title, self.fold


class Job(Contract):
    """Tasks in the order in which they were given, and the entries that they are of."""

    name: str
    created_at: datetime.datetime
    entries: tuple[Entry, ...]
    tasks: tuple[Task, ...]

    @model_validator(mode="after")
    def _check(self) -> Job:
        known: set[str] = set()
        for task in self.tasks:
            if not known.issuperset(task.needs) or not 0 <= task.entry < len(self.entries):
                raise ValueError(f"{task.name}: needs what does not come before it")
            known.add(task.name)
        return self

    @property
    def titles(self) -> list[str]:
        return list(dict.fromkeys(task.title for task in self.tasks))

    def files(self, store: Path) -> list[Path]:
        """What its tasks read that lies outside the store."""
        given = (one.place for task in self.tasks for one in inputs_of(task.request))
        return sorted({place for place in given if place is not None and not place.is_relative_to(store)})


def is_task(request: Request) -> bool:
    """Whether a job does it.

    Scoring is shared out by chunks instead, and measures what a member costs.
    """
    return request.stage not in BROUGHT and not stage_of(request.stage).scores


def gpus_of(request: Request) -> int:
    """Cards of one host that a stage takes, where hosts have any."""
    if isinstance(request, TrainRequest):
        return request.spec.gpus
    return 1 if stage_of(request.stage).on_gpus else 0


def job_of(asked: Sequence[Asked]) -> Job:
    """The job of all that is asked, a task an artifact.

    What several chains share is of the first.
    """
    wanted: dict[str, Asked] = {}
    for one in asked:
        if is_task(one.request):
            wanted.setdefault(artifact_name(one.request), one)
    makers = {fingerprint(one.request): name for name, one in wanted.items()}
    entries: list[Entry] = []
    tasks = []
    for name, one in wanted.items():
        if one.entry not in entries:
            entries.append(one.entry)
        needs = dict.fromkeys(makers[given.fingerprint] for given in inputs_of(one.request) if given.fingerprint in makers)
        tasks.append(
            Task(
                name=name,
                title=one.title,
                fold=one.fold,
                entry=entries.index(one.entry),
                gpus=gpus_of(one.request),
                needs=tuple(needs),
                request=one.request,
            )
        )
    digest = hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()[:8]
    titles = dict.fromkeys(task.title for task in tasks)
    called = next(iter(titles)) if len(titles) == 1 else f"{len(titles)}-entries"
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in called)
    return Job(
        name=f"{name}-{digest}", created_at=datetime.datetime.now(datetime.UTC), entries=tuple(entries), tasks=tuple(tasks)
    )


def job_folder(store: Path, name: str) -> Path:
    return store / JOBS / name


def keep_job(job: Job, store: Path) -> Path:
    """Write a job down, or go on with the one that is there; its folder.

    Where its files lie now may differ from when it began: workers that start read what is written last.
    """
    folder = job_folder(store, job.name)
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    with suppress(ZooError):  # there is none yet, or it cannot be read: it is written anew
        job = job.model_copy(update={"created_at": read_job(folder, checked=False).created_at})
    if not (folder / TOKEN).exists():  # workers that start may be comparing it just now
        write_atomic(folder / TOKEN, secrets.token_hex(16))
    write_atomic(folder / HOST, json.dumps(asdict(facts_here(folder / TOKEN, job.files(store)))))
    write_atomic(folder / JOB, job.model_dump_json(indent=1))
    (folder / STOP).unlink(missing_ok=True)
    return folder


def read_job(folder: Path, *, checked: bool = True) -> Job:
    """The job of a folder.

    ZooError where there is none, or with `checked` where a task is not what its name says: another version wrote it, or its
    file was changed.
    """
    mend = f"give the command again that began it, or remove {folder}"
    try:
        job = Job.model_validate_json((folder / JOB).read_text())
    except FileNotFoundError:
        raise ZooError(f"{folder.name}: no such job in {folder.parent}; see `zoo jobs`") from None
    except (OSError, ValueError) as error:
        what = first_fault(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise ZooError(f"{folder / JOB}: not a job ({what}); {mend}") from error
    if checked and (other := next((task for task in job.tasks if artifact_name(task.request) != task.name), None)):
        raise ZooError(f"{folder / JOB}: {other.name} is asked for something else now ({artifact_name(other.request)}); {mend}")
    return job


def host_of(folder: Path) -> HostFacts:
    """What the host of the command that began or came back to a job says of itself.

    ZooError where it cannot be read, as what another version wrote.
    """
    try:
        return HostFacts(**json.loads((folder / HOST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        why = str(error).splitlines()[0]
        mend = f"install the same commit on {socket.gethostname()} as where the job began, or give its command again"
        raise ZooError(f"{folder / HOST}: not a host's facts as this version writes them ({why}); {mend}") from error


def jobs_in(store: Path) -> Iterator[Path]:
    """The folders of a store's jobs, by name."""
    return (path.parent for path in sorted((store / JOBS).glob(f"*/{JOB}")))


def is_made(store: Path, name: str) -> bool:
    """Whether the store has a task's artifact."""
    return (store / name / MANIFEST).exists()
