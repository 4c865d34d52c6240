"""Predict a file with a plan: battles to submission, inside the deadline.

A whole file is on disk before the first member runs, and every write replaces it whole: stop the process at any moment and
what is there is valid. Work lies in `<home>/predict/<digest of plan and battles>/`; the same command goes on from there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ensemble.plan import Plan, PlanTarget, load_plan
from ensemble.predict.attempts import Setting, checkpoint_folder
from ensemble.predict.board import Board, Submission, add_given, can_tie, check_given
from ensemble.predict.conductor import Conductor
from ensemble.predict.deadline import Deadline, StopRequest, stop_requests, watchdog
from ensemble.predict.outcome import Prediction, summarize
from ensemble.predict.watch import Display, clock, job_statuses
from zoo.contracts import Input
from zoo.data.battles import Battles, count_characters, dataset_digest, read_battles
from zoo.errors import ZooError
from zoo.settings import home
from zoo.store import open_lock
from zoo.targets import visible_gpus

POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 1.0  # a long budget need not look ten times a second
LOCK_PATIENCE_SECONDS = 10.0  # for jobs of a killed run to end


def work_folder(plan: Plan, digest: str) -> Path:
    """Where a prediction's jobs and its predict.json lie.

    `digest`: `dataset_digest` of the battles.
    """
    return home() / "predict" / hashlib.sha256((plan.model_dump_json() + digest).encode()).hexdigest()[:16]


def predict(
    plan_path: Path,
    battles_path: Path,
    output: Path,
    *,
    started_at: float,
    budget_seconds: float | None = None,
    store: Path | None = None,
    scores: Mapping[str, Path] | None = None,
) -> Prediction:
    """Predict the battles by the plan and write `output`, never later than the budget.

    Runs the plan's members and writes the blend of what they say. `started_at`: when this process started, on the clock of
    `time.monotonic()`. `budget_seconds` overrides the plan's; `store` is where checkpoints are looked for (default: the
    home's); `scores` gives members' tables for these battles instead of running them. SIGTERM and SIGINT end the work early:
    what is there is written. Raises ZooError before anything is written where the input cannot be used; a member that fails
    later is left out, and the result says so.
    """
    plan = load_plan(plan_path)
    check_given(plan, scores or {})
    deadline = Deadline(plan.budget_seconds if budget_seconds is None else budget_seconds, started_at)
    begun: list[tuple[Conductor, Submission]] = []
    with stop_requests() as stop, watchdog(deadline, lambda: _last_act(begun, deadline)):
        battles = read_battles(battles_path)
        digest = dataset_digest(battles)
        folder = work_folder(plan, digest)
        with _only_one(folder, min(LOCK_PATIENCE_SECONDS, deadline.budget_seconds / 4)) as lock:
            where = Input(path=battles_path.absolute(), fingerprint=digest)
            setting = Setting(where, store or home() / "store", folder, lock, gpus_at_hand(plan.target))
            board = Board(battles.ids, [member.name for member in plan.members])
            given = add_given(board, scores or {}, ties=can_tie(plan))
            display = Display(deadline)
            conductor = _prepare(plan, battles, board, setting, deadline, given, display)
            submission = Submission(output, plan, board, deadline)
            begun.append((conductor, submission))
            output.parent.mkdir(parents=True, exist_ok=True)
            submission.write(conductor.planned)
            predicted_seconds = conductor.predicted_seconds()
            _announce(plan, setting, display, len(battles.ids), predicted_seconds, deadline)
            try:
                with display.shown():
                    _work(conductor, submission, deadline, stop, display)
                _finish(conductor, submission, deadline)
            finally:
                conductor.kill()
            return summarize(battles, conductor, submission, deadline, stop, given, folder, predicted_seconds)


def _last_act(begun: Sequence[tuple[Conductor, Submission]], deadline: Deadline) -> int:
    """What the watchdog does at the budget's end: kill the jobs; the exit code."""
    for conductor, _ in begun:
        conductor.kill()
    written = any(submission.written for _, submission in begun)
    state = "the file on disk is whole" if written else "it was too short to write anything"
    os.write(2, f"warning: stopped at the budget's end, {clock(deadline.budget_seconds)}; {state}\n".encode())
    return 0 if written else 1


def _prepare(
    plan: Plan,
    battles: Battles,
    board: Board,
    setting: Setting,
    deadline: Deadline,
    given: Mapping[str, str],
    display: Display,
) -> Conductor:
    """The jobs, after a look whether every member that is to run has its checkpoint."""
    for member in plan.members:
        if member.name not in given:
            checkpoint_folder(member, setting)
    characters, usable = _measure(battles)
    return Conductor(plan, board, characters, usable, setting, deadline, given=given, say=display.say)


def _work(conductor: Conductor, submission: Submission, deadline: Deadline, stop: StopRequest, display: Display) -> None:
    """Run jobs until all have ended, time is up or a stop is asked for; improve the file."""
    news = conductor.recall()
    if news:
        display.say(f"{news:,} scores of an earlier run of this command are taken over")
    poll = min(LONGEST_POLL_SECONDS, max(POLL_SECONDS, deadline.budget_seconds / 5000))
    while not stop and deadline.now() < deadline.work_ends:
        ended = sum(run.status == "ended" for run in conductor.runs)
        news += conductor.tick()
        one_ended = sum(run.status == "ended" for run in conductor.runs) > ended
        if news and (submission.due or one_ended):
            submission.write(conductor.planned)
            news = 0
        if conductor.finished:
            return
        display.update(job_statuses(conductor, deadline.now()))
        time.sleep(max(0.0, min(poll, deadline.work_ends - deadline.now())))


def _finish(conductor: Conductor, submission: Submission, deadline: Deadline) -> None:
    """The last look at the jobs' files and the last write; then end what still runs."""
    running = [run for run in conductor.runs if run.alive]
    for run in running:
        run.harvest(deadline.now())
        run.stop(f"time was up with {len(run.missing(run.rows)):,} of {len(run.rows):,} rows to go", deadline.now(), 0.0)
    for run in conductor.runs:
        if run.status == "waiting":
            run.skip("no time was left for it", deadline.now())
    submission.write(conductor.planned)
    for run in running:
        run.kill()
    while any(run.status != "ended" for run in running) and deadline.now() < deadline.watchdog_at - POLL_SECONDS:
        for run in running:
            run.poll(deadline.now())
        time.sleep(0.02)


def _measure(battles: Battles) -> tuple[np.ndarray, np.ndarray]:
    """Characters of each row's text (0 where bad) and which rows are usable: both (rows,)."""
    length = dict(zip(battles.frame["id"], count_characters(battles.frame), strict=True))
    characters = np.array([length.get(row_id, 0.0) for row_id in battles.ids], dtype=np.float64)
    return characters, np.array([row_id in length for row_id in battles.ids])


def _announce(plan: Plan, setting: Setting, display: Display, rows: int, predicted_seconds: float, deadline: Deadline) -> None:
    names = ", ".join(member.name for member in plan.members)
    display.say(f"{rows:,} rows; the prior is on disk; members in order: {names}")
    if plan.target.gpus and not setting.visible_gpus:
        display.say(f"no GPU is visible here, the plan is for {plan.target.name}: members run on processors")
    needed = predicted_seconds * plan.margin
    text = f"predicted end {clock(predicted_seconds)}, {clock(needed)} with the margin of {plan.margin:g}"
    display.say(text + ("; what does not fit is skipped" if needed > deadline.budget_seconds else ""))


def gpus_at_hand(target: PlanTarget) -> tuple[str, ...]:
    """The GPUs that the plan's device numbers mean.

    None where none is at hand: members then run on processors. ZooError where there are some, but fewer than the plan deals its
    members over.
    """
    found = visible_gpus() if target.gpus else ()
    if 0 < len(found) < target.gpus:
        raise ZooError(
            f"the plan is for {target.gpus} GPUs of {target.name}, {len(found)} are visible here; "
            "build a plan for this machine's target"
        )
    return found


@contextmanager
def _only_one(folder: Path, patience_seconds: float) -> Iterator[int]:
    """Hold the work folder while the block runs.

    Its jobs inherit the descriptor, so a killed run's jobs must end before the next run starts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(folder / "lock")
    give_up = time.monotonic() + patience_seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise ZooError(
                        f"{folder}: another prediction of this plan on these battles is running; wait for it"
                    ) from None
                time.sleep(POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)
