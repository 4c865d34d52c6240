"""`zoo jobs`: what hosts of a cluster make, where, and how far they are."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from zoo.experiments.jobs.tasks import Job


def jobs(
    name: Annotated[str | None, typer.Argument(help="Job, or the beginning of its name; default: a line for each.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the job as it goes on, until it is over or Ctrl-C.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Have its workers end; what is done so far is kept.")] = False,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Trainings on other hosts: what runs where, what is left, what failed and why.

    A job is what one command with --runner ray or slurm has hosts make. The same command comes back to it, and tries again
    what failed.

    Example: zoo jobs

    Example: zoo jobs smollm2-135m-3f2a9c1d --watch
    """
    from zoo.experiments.jobs.states import statuses
    from zoo.experiments.jobs.tasks import read_job
    from zoo.experiments.jobs.view import counted, follow, jobs_table, named, summaries, tasks_table
    from zoo.settings import store_folder

    style, store = style_of(output, as_json), store_folder()
    if watch and stop:
        raise ZooError("--watch, --stop: one shows what the other ends; leave one of them out")
    if name is None:
        if watch or stop:
            raise ZooError(f"--{'watch' if watch else 'stop'}: of which job? `zoo jobs` lists them; give its name")
        table = jobs_table(list(summaries(store)))
        show(
            [table if table.rows else "no jobs; `zoo run ENTRY --data FILE --folds 5 --runner ray` makes one"],
            style,
            data=table.records(),
        )
        return
    folder = named(store, name)
    job = read_job(folder)
    if stop:
        _stop(folder, job, store)
        return
    if watch:
        with suppress(KeyboardInterrupt):  # it ends the watching alone
            follow(job, folder, store, say=say, keep_up=lambda: "")
    found = statuses(folder, job, store)
    table = tasks_table(found, store)
    show([table, f"{job.name}: {counted(found)}"], style, data={"job": job.name, "tasks": table.records()})


def _stop(folder: Path, job: Job, store: Path) -> None:
    from zoo.experiments.jobs.run import stop_job
    from zoo.experiments.jobs.states import statuses
    from zoo.experiments.jobs.view import counted

    found = statuses(folder, job, store)
    if not any(one.is_open for one in found):
        say(f"{job.name}: nothing is left to stop ({counted(found)})")
        return
    stop_job(folder)
    say(f"{job.name}: its workers end; the command that began it goes on where they stop")
