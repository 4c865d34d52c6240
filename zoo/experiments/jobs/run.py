"""Run chains as a job: their stages are shared out over the hosts of the runner.

The command brings what jobs start from (weights, adapters from elsewhere), writes the job down, has workers started, and shows
it. Where workers outlive it, Ctrl-C leaves them at work, and the same command comes back to them.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zoo.contracts import Entry, Held, MergeRequest, Request, Say
from zoo.errors import ZooError, amount
from zoo.experiments.jobs.states import Status, forget_failures, open_chains, statuses
from zoo.experiments.jobs.tasks import BROUGHT, LOGS, STOP, Asked, Job, is_made, job_folder, job_of, keep_job
from zoo.experiments.jobs.view import counted, follow
from zoo.experiments.run import run_chain
from zoo.pipeline.runners import slurm
from zoo.pipeline.runners.chosen import CHOSEN, current_runner
from zoo.remote import pull_known
from zoo.settings import load_settings
from zoo.store import artifact_name, if_free, lock_file, write_atomic
from zoo.store.leases import LAPSE_SECONDS, LEASES

WORKER = ("-m", "zoo.experiments.jobs.worker")
ASK_SECONDS = 10.0  # between two looks at who works
GRACE_SECONDS = 5.0  # for a look that is under way when the job is over


def asked_of(title: str, entry: Entry, chains: Sequence[Sequence[Request]]) -> list[Asked]:
    """The requests of an entry's chains, each of a fold or of the mean of all."""
    return [Asked(title, _fold_of(requests), entry, request) for requests in chains for request in requests]


def _fold_of(requests: Sequence[Request]) -> int | None:
    if any(isinstance(request, MergeRequest) and request.more_adapters for request in requests):
        return None
    return next((held.fold for request in requests if isinstance(held := getattr(request, "held", None), Held)), None)


def run_ahead(given: Iterable[Asked], store: Path, *, say: Say) -> None:
    """Have hosts of the runner make what jobs do of the requests.

    Nothing where stages run on this host. ZooError naming what failed, once all else is done.
    """
    if current_runner() == "local":
        return
    asked = list(given)
    job = job_of(asked)
    if all(is_made(store, task.name) for task in job.tasks):
        return
    if current_runner() == "ray":
        from zoo.pipeline.runners.ray_workers import check_cards

        check_cards({f"{task.request.stage} of {task.title}": task.gpus for task in job.tasks if not is_made(store, task.name)})
    _bring(asked, job, store, say)
    if all(is_made(store, task.name) for task in job.tasks):
        return
    folder = keep_job(job, store)
    forget_failures(folder, job)
    before = statuses(folder, job, store)
    say(f"job {job.name}: {amount(len(job.tasks), 'task')}, {counted(before)}; `zoo jobs {job.name}` shows it from elsewhere")
    found = (_by_ray if current_runner() == "ray" else _by_array)(job, folder, store, say)
    if failed := [one for one in found if one.state == "failed"]:
        first = failed[0]
        more = f"; {len(failed) - 1} more failed" if len(failed) > 1 else ""
        where = f" on {first.note.host}" if first.note else ""
        raise ZooError(
            f"{first.task.name} failed{where}: {first.why}{more}; see `zoo jobs {job.name}`; the same command tries again",
            exit_code=1,
        )


def _bring(asked: Sequence[Asked], job: Job, store: Path, say: Say) -> None:
    """Get into the store what tasks start from, and of their artifacts what the remote has."""
    for one in asked:
        if one.request.stage in BROUGHT and not is_made(store, artifact_name(one.request)):
            run_chain([one.request], one.entry, store, say=say)
    for task in job.tasks:
        with if_free(lock_file(store, task.name)) as free:  # else somebody makes it just now
            if free and not is_made(store, task.name):
                pull_known(task.request, store, say)


def _by_ray(job: Job, folder: Path, store: Path, say: Say) -> list[Status]:
    from zoo.pipeline.runners.ray import OWN_PYTHON, is_own_cluster
    from zoo.pipeline.runners.ray_workers import RayWorkers

    workers = RayWorkers(
        job.name,
        (OWN_PYTHON, *WORKER, str(folder), f"{LAPSE_SECONDS:g}"),
        store,
        leases=folder / LEASES,
        logs=folder / LOGS,
        files=job.files(store),
        say=say,
    )
    workers.begin(open_chains(statuses(folder, job, store)))
    stays = (
        "ends what runs; the same command goes on"
        if is_own_cluster()
        else "leaves it at work; the same command comes back to it"
    )
    say(f"Ctrl-C {stays}")

    def has_workers() -> str:
        left = open_chains(statuses(folder, job, store))
        if not left or workers.keep_up(left):
            return ""
        return f"no worker is left that could go on; {_last_words(folder)}"

    try:
        with AskedBeside(has_workers) as keep_up:
            return follow(job, folder, store, say=say, keep_up=keep_up)
    finally:
        workers.end()


def _last_words(folder: Path) -> str:
    """The last line that a worker wrote, and where."""
    for log in sorted((folder / LOGS).glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True):
        if lines := log.read_text(errors="replace").strip().splitlines():
            return f"{log}: {lines[-1][:300]}"
    return f"see {folder / LOGS}"


class AskedBeside:
    """Asks a question every ASK_SECONDS in a thread of its own.

    A host may take minutes to answer what it is.
    """

    def __init__(self, question: Callable[[], str]) -> None:
        self._question, self._ended = question, threading.Event()
        self._answer: str | Exception = ""
        self._thread = threading.Thread(target=self._ask, daemon=True, name="workers")

    def __enter__(self) -> Callable[[], str]:
        self._thread.start()
        return self._last

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(GRACE_SECONDS)

    def _ask(self) -> None:
        while not self._answer and not self._ended.wait(ASK_SECONDS):
            try:
                self._answer = self._question()
            except Exception as error:
                self._answer = error

    def _last(self) -> str:
        """What was answered last; raises what the question did."""
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def script_of(job: Job, store: Path) -> str:
    """The script of the array that a job is done by: no more tasks than it has chains."""
    folder, settings = job_folder(store, job.name), load_settings().slurm
    chains = len({task.chain for task in job.tasks})
    command = (sys.executable, *WORKER, str(folder), f"{LAPSE_SECONDS:g}")
    environment = {**slurm.task_environment("train"), "ZOO_HOME": str(store.parent), CHOSEN: "local"}
    settings = settings.model_copy(update={"tasks": min(settings.tasks, chains)})
    return slurm.array_script(job.name, command, folder, settings, environment)


def script_ahead(asked: Sequence[Asked], store: Path) -> str:
    """The script of the array that `run_ahead` would submit; empty where nothing is left to do."""
    job = job_of(asked)
    return "" if all(is_made(store, task.name) for task in job.tasks) else script_of(job, store)


def _by_array(job: Job, folder: Path, store: Path, say: Say) -> list[Status]:
    array = slurm.at_work(folder)
    if array is None:
        array = slurm.submitted(script_of(job, store), folder)
        say(f"Slurm job {array} is submitted; Ctrl-C leaves it at work, and the same command comes back to it")
    else:
        say(f"Slurm job {array} is at work on it")

    say_once = functools.cache(say)

    def is_at_work() -> str:
        if not slurm.is_over(array, say_once) or not (left := open_chains(statuses(folder, job, store))):
            return ""
        large = max(left)
        cards = f"; what is left takes {large} cards of one host: see `[slurm] options`" if large > 1 else ""
        return f"Slurm job {array} is over; {slurm.log_end(folder)}{cards}"

    with AskedBeside(is_at_work) as keep_up:
        found = follow(job, folder, store, say=say, keep_up=keep_up)
    slurm.end(array, waiting=True)  # those at work may still be logging
    return found


def stop_job(folder: Path) -> None:
    """Have a job's workers end; what they have done so far is kept."""
    write_atomic(folder / STOP, "")
