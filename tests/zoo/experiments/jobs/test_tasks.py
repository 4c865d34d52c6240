"""A job as files: its tasks, what comes first, what failed, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.jobs import asked_folds, lexical_asked, tiny_entry
from tests.helpers.manifests import finished
from zoo.cli.main import app
from zoo.contracts import Entry, Held, Selection, TrainRequest
from zoo.errors import ZooError
from zoo.experiments.jobs.states import Note, forget_failures, in_order, open_chains, statuses, write_note
from zoo.experiments.jobs.tasks import JOB, STOP, Asked, Job, Task, job_of, keep_job, read_job
from zoo.experiments.jobs.view import jobs_table, named, summaries, tasks_table
from zoo.pipeline.chain import battles_input
from zoo.pipeline.folds import fold_chains
from zoo.store import LOG, MANIFEST, PARTIAL, collect, find_garbage, fingerprint
from zoo.store.leases import LEASES, Leases


@pytest.fixture
def store(own_home: Path) -> Path:
    return own_home / "store"


@pytest.fixture
def job(sample_csv: Path, tiny_llama: Path, store: Path) -> Job:
    """Two entries, two folds each, up to their quantized checkpoints."""
    entries = [tiny_entry("one"), tiny_entry("two", learning_rate=1e-3)]
    return job_of([asked for e in entries for asked in asked_folds(e, sample_csv, store, tiny_llama, last="quantize")])


def make(store: Path, *tasks: Task) -> None:
    for task in tasks:
        finished(store, task.request)


def test_folds_and_entries_become_a_graph_of_what_one_host_does(job: Job) -> None:
    assert [task.request.stage for task in job.tasks] == ["train", "merge", "quantize"] * 4, "no weights to fetch, no scores"
    assert [(task.title, task.fold) for task in job.tasks[::3]] == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    for train, merge, quantize in zip(job.tasks[::3], job.tasks[1::3], job.tasks[2::3], strict=True):
        assert (train.needs, merge.needs, quantize.needs) == ((), (train.name,), (merge.name,))
    assert len({task.name for task in job.tasks}) == 12 and {task.gpus for task in job.tasks} == {1}


def test_a_job_reads_back_as_it_was_asked_and_the_same_command_comes_back_to_it(job: Job, store: Path) -> None:
    folder = keep_job(job, store)
    found = read_job(folder)
    assert [fingerprint(task.request) for task in found.tasks] == [fingerprint(task.request) for task in job.tasks]
    assert found.entries == job.entries
    later = job_of_again(job)
    assert later.name == job.name and keep_job(later, store) == folder
    assert read_job(folder).created_at == job.created_at
    assert named(store, job.name[:9]) == folder


def job_of_again(job: Job) -> Job:
    return Job(name=job.name, created_at=job.created_at.replace(year=2100), entries=job.entries, tasks=job.tasks)


def test_another_setting_is_another_job(job: Job, sample_csv: Path, tiny_llama: Path, store: Path) -> None:
    others = [asked_folds(tiny_entry("one", rank=rank), sample_csv, store, tiny_llama) for rank in (4, 8)]
    assert len({job.name, *(job_of(asked).name for asked in others)}) == 3


def test_whatever_a_training_reads_outside_the_store_is_asked_for_on_each_host(
    sample_csv: Path, tiny_llama: Path, tmp_path: Path, store: Path
) -> None:
    """Extra battles of either kind of entry, and of an earlier training, among it."""
    names = ("one", "two", "earlier", "words")
    files = {name: tmp_path / f"{name}.csv" for name in names}
    for path in files.values():
        shutil.copy(sample_csv, path)
    first = {"extra": [{"file": str(files["earlier"])}]}
    spec = {"extra": [{"file": str(files["one"])}, {"file": str(files["two"]), "weight": 0.5}], "first": first}
    asked = asked_folds(tiny_entry("one", **spec), sample_csv, store, tiny_llama, last="merge")
    words = Entry.model_validate({"name": "w", "kind": "lexical", "lexical": {"extra": [{"file": str(files["words"])}]}})
    (lexical,) = fold_chains(words, battles_input(sample_csv), "cpu", store, held=Held(), selection=Selection())
    asked.append(Asked("w", None, words, lexical[0]))
    assert job_of(asked).files(store) == sorted([sample_csv, *files.values()])


def test_what_several_chains_share_is_of_the_first(sample_csv: Path, store: Path) -> None:
    """By its entry too: a recipe's runs evaluate one untrained model, and a host alone logs it for the first of them."""
    (first,) = lexical_asked(sample_csv, store, 2)
    second = Asked("second", 1, first.entry.model_copy(update={"name": "second"}), first.request)
    job = job_of([first, second])
    assert [(task.title, task.fold, task.entry) for task in job.tasks] == [(first.title, first.fold, 0)]
    assert job.entries == (first.entry,)


def test_a_chain_that_has_begun_comes_before_a_new_one(job: Job, store: Path) -> None:
    folder = keep_job(job, store)

    def first() -> list[str]:
        return [one.task.name for one in in_order(statuses(folder, job, store))]

    assert first() == [task.name for task in job.tasks[::3]]
    make(store, job.tasks[9])  # the last chain's training
    assert first() == [job.tasks[10].name, *(task.name for task in job.tasks[0:9:3])]
    assert open_chains(statuses(folder, job, store)) == {1: 4}


def test_what_failed_takes_what_needs_it_with_it_and_nothing_else(job: Job, store: Path) -> None:
    folder = keep_job(job, store)
    note = Note(state="failed", host="node7", holder="h", since=1.0, ended=3.0, message="the disk is full")
    write_note(folder, job.tasks[0], note)
    found = statuses(folder, job, store)
    assert [one.state for one in found[:3]] == ["failed", "not run", "not run"]
    assert found[1].why == "needs its train"
    assert {one.state for one in found[3:]} == {"queued", "waiting"} and open_chains(found) == {1: 3}
    rows = tasks_table(found, store).records()
    assert rows[0]["state"] == "failed" and rows[0]["host"] == "node7" and rows[0]["seconds"] == 2
    assert "the disk is full" in str(rows[0]["what"])
    log = store / PARTIAL / job.tasks[0].name / LOG
    log.parent.mkdir(parents=True)
    log.write_text(f"step 1\nzoo.errors.ZooError: {note.message}\n")
    assert tasks_table(found, store).records()[0]["what"] == f"{note.message}; log: {log}", "what failed is told once"
    log.write_text("the driver is gone\n")
    assert "full; the driver is gone; log" in str(tasks_table(found, store).records()[0]["what"])
    (one,) = summaries(store)
    assert (one.counts["failed"], one.counts["not run"], one.is_over) == (1, 2, False)
    assert jobs_table([one]).records()[0]["tasks"] == 12
    forget_failures(folder, job)
    assert statuses(folder, job, store)[0].state == "queued"


def test_who_fell_silent_runs_nothing(job: Job, store: Path) -> None:
    folder = keep_job(job, store)
    leases = Leases(folder / LEASES, "node7-1")
    assert leases.claim(0)
    write_note(folder, job.tasks[0], Note(state="running", host="node7", holder="node7-1", since=1.0))
    assert statuses(folder, job, store)[0].state == "running"
    make(store, job.tasks[3])
    write_note(folder, job.tasks[3], Note(state="running", host="node7", holder="node7-1", since=1.0))
    made = statuses(folder, job, store)[3]
    assert (made.state, made.why) == ("done", "its worker logs it before it takes the next")
    os.utime(store / job.tasks[3].name / MANIFEST, (8.0, 8.0))
    by_name = {row["task"]: row for row in tasks_table(statuses(folder, job, store), store).records()}
    assert by_name[job.tasks[3].name]["seconds"] == 7, "what is logged afterwards is no part of it"
    leases.leave()
    assert statuses(folder, job, store)[3].why == ""
    found = statuses(folder, job, store)
    assert (found[0].state, found[0].why) == ("queued", "its worker on node7 fell silent; another goes on")
    assert next(in_order(found)).task == job.tasks[0]


def test_a_job_that_says_something_else_now_is_refused_by_name(job: Job, store: Path) -> None:
    folder = keep_job(job, store)
    train = job.tasks[0].request
    assert isinstance(train, TrainRequest)
    other = train.model_copy(update={"revision": 99})
    tasks = (job.tasks[0].model_copy(update={"request": other}), *job.tasks[1:])
    (folder / JOB).write_text(job.model_copy(update={"tasks": tasks}).model_dump_json())
    with pytest.raises(ZooError, match=rf"{job.tasks[0].name} is asked for something else now \(train-.*remove"):
        read_job(folder)
    (folder / JOB).write_text("{}")
    with pytest.raises(ZooError, match=r"job.json: not a job \(.*give the command again"):
        read_job(folder)
    assert keep_job(job, store) == folder and read_job(folder).tasks == job.tasks, "the command that is named mends it"
    with pytest.raises(ZooError, match="no such job; there are"):
        named(store, "nothing")


def test_what_is_over_is_not_stopped(sample_csv: Path, store: Path) -> None:
    job = job_of(lexical_asked(sample_csv, store, 2))
    folder = keep_job(job, store)
    make(store, *job.tasks)
    result = CliRunner().invoke(app, ["jobs", job.name, "--stop"])
    assert result.exit_code == 0 and f"{job.name}: nothing is left to stop (1 done)" in result.stderr
    assert not (folder / STOP).exists()


def test_old_jobs_are_garbage_and_what_they_made_is_not(sample_csv: Path, store: Path) -> None:
    job = job_of(lexical_asked(sample_csv, store, 2))
    folder = keep_job(job, store)
    make(store, *job.tasks)
    Leases(folder / LEASES, "node7-1").leave()
    assert not find_garbage(store.parent)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, 0))
    list(summaries(store))  # who looks at jobs does not keep them
    (item,) = find_garbage(store.parent)
    assert item.path == folder and "what it made stays" in item.why
    assert collect(item, store.parent) and not folder.exists() and (store / job.tasks[0].name).exists()


def test_a_job_that_is_worked_on_is_no_garbage_however_few_days_are_asked_for(sample_csv: Path, store: Path) -> None:
    folder = keep_job(job_of(lexical_asked(sample_csv, store, 2)), store)
    (item,) = find_garbage(store.parent, days=0)
    leases = Leases(folder / LEASES, "node7-1")
    assert not find_garbage(store.parent, days=0)
    assert not collect(item, store.parent) and folder.exists(), "a worker has come since"
    leases.leave()
    assert collect(item, store.parent) and not folder.exists()
