"""Predict a file with a plan: battles to submission, inside the deadline.

A whole file is on disk before the first member runs, before any lock is waited for, and every write replaces it whole: stop
the process at any moment and what is there is valid. Work lies in `<home>/predict/<digest of plan and battles>/`; the same
command goes on from there.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from ensemble.members.texts import about_rows
from ensemble.plan import Plan, load_plan
from ensemble.predict.attempts import Setting
from ensemble.predict.board import Board, Submission, add_given, check_given, told_of_ties
from ensemble.predict.conductor import Conductor
from ensemble.predict.deadline import Deadline, StopRequest, stop_requests, watchdog
from ensemble.predict.devices import dealt_over, gpus_at_hand
from ensemble.predict.outcome import Prediction, exit_code, summarize
from ensemble.predict.streams import LAST_WORDS_SECONDS, Unblocked, unblocked
from ensemble.predict.watch import Display, clock, job_statuses
from ensemble.predict.workplace import POLL_SECONDS, Workplace, only_one
from zoo.contracts import Input
from zoo.data.battles import Battles, dataset_digest, read_battles, text_lengths, texts_digest
from zoo.data.usable import unusable_line
from zoo.pipeline.submissions import Sample
from zoo.reading import check_ordinary
from zoo.scores.form import COMPETITION
from zoo.settings import home
from zoo.store import check_output, note_needed
from zoo.tracking.spans import recorded, span

LONGEST_POLL_SECONDS = 1.0  # a long budget need not look ten times a second
LOCK_PATIENCE_SECONDS = 10.0  # for jobs of a killed run to end


def work_folder(plan: Plan, battles: Battles) -> Path:
    """Where a prediction's jobs and its predict.json lie.

    It goes by the plan without its calibration and by what members read, ids and texts. Labels say nothing of it, so that a
    file is evaluated that was predicted without. Folders of version 0.1.0 went by labels too, and are used where they are.
    """
    members = plan.model_copy(update={"calibration": None}).model_dump_json()  # a recalibrated plan finds what they have said
    before, now = (
        home() / "predict" / hashlib.sha256((members + digest(battles)).encode()).hexdigest()[:16]
        for digest in (dataset_digest, texts_digest)
    )
    return before if before.exists() else now


def predict(
    plan_path: Path,
    battles_path: Path,
    output: Path,
    *,
    started_at: float,
    budget_seconds: float | None = None,
    store: Path | None = None,
    scores: Mapping[str, Path] | None = None,
    like: Sample | None = None,
) -> Prediction:
    """Predict the battles by the plan and write `output`, never later than the budget.

    Runs the plan's members and writes the blend of what they say. `started_at`: when this process started, on the clock of
    `time.monotonic()`. `budget_seconds` overrides the plan's; `store` is where checkpoints are looked for (default: the
    home's); `scores` gives members' tables for these battles instead of running them; `like`: the sample whose columns are
    written. SIGTERM, SIGINT and SIGHUP end the work
    early: what is there is written. Raises ZooError before anything is written where the input cannot be used, and with the
    prior written where no member can run, or the same prediction runs already. A member that fails is left out, and the result
    says so.
    """
    given_tables = dict(scores or {})
    check_output(output, plan_path, battles_path, *given_tables.values(), *([like.path] if like else []))
    plan = load_plan(plan_path)
    check_given(plan, given_tables)
    for path in (battles_path, *given_tables.values()):
        check_ordinary(path, mend="give a file")
    deadline = Deadline(plan.budget_seconds if budget_seconds is None else budget_seconds, started_at)
    begun: list[_Begun] = []
    with recorded("prediction", clock=deadline.now, started=0.0) as recording, unblocked(), stop_requests() as stop:
        recording.add("start and check", 0.0, deadline.now(), recording.root, {"members": len(plan.members)})
        errors = sys.stderr
        with watchdog(deadline, lambda: _last_act(begun, deadline, errors)):
            with span("read battles") as reading:
                battles = read_battles(battles_path)
                lengths = _lengths(battles)
                reading.attributes["rows"] = len(battles.ids)
            board = Board(battles.ids, [member.name for member in plan.members], ties=plan.ties, lengths=lengths)
            ties = plan.ties and battles.can_tie
            submission = Submission(output, plan, board, deadline, ties, like.form if like else COMPETITION)
            given = add_given(board, given_tables, ties=ties)
            work = _Begun(plan, battles, lengths, submission, Display(deadline), given)
            begun.append(work)
            output.parent.mkdir(parents=True, exist_ok=True)
            submission.write({name: work.usable for name in board.members})
            _tell(work)
            if like and (told := like.told_of(battles.ids)):
                work.display.say(told)
            done = _in_workplace(work, store or home() / "store", stop)
            if stop:
                recording.root.event("asked to stop early", deadline.now(), signal=stop.signal_name)
            return replace(done, spans=tuple(recording.finished()))


class _Begun:
    """A prediction whose file is on disk."""

    def __init__(
        self,
        plan: Plan,
        battles: Battles,
        lengths: np.ndarray,
        submission: Submission,
        display: Display,
        given: dict[str, str],
    ) -> None:
        self.plan, self.battles, self.submission, self.display, self.given = plan, battles, submission, display, given
        self.usable, self.characters = ~np.isnan(lengths[:, 0]), np.nan_to_num(lengths).sum(axis=1)
        self.conductor: Conductor | None = None

    def conduct(self, plan: Plan, setting: Setting) -> Conductor:
        """The jobs of the plan, none of them started."""
        board, deadline = self.submission.board, self.submission.deadline
        arguments = (plan, board, self.characters, self.usable, setting, deadline)
        return Conductor(*arguments, given=self.given, say=self.display.say)


def _in_workplace(work: _Begun, store: Path, stop: StopRequest) -> Prediction:
    """Carry out the plan in its work folder, which it holds as long; what became of it."""
    deadline, display, folder = work.submission.deadline, work.display, work_folder(work.plan, work.battles)
    place = Workplace(folder, display.say)
    where = Input(path=work.battles.path.absolute(), fingerprint=texts_digest(work.battles))
    gpus = gpus_at_hand(work.plan.target)
    plan, impossible = dealt_over(work.plan, len(gpus))
    layout = "" if plan is work.plan else f"over-{len(gpus)}-"
    setting = Setting(where, store, place, None, gpus, layout)
    early = work.conduct(plan, setting)
    if early.look():  # at what another process may be working on: the file is no worse than one that it has written
        work.submission.write(early.planned)
    about = about_rows(work.battles.frame.set_index("id"))
    try:
        with only_one(folder, min(LOCK_PATIENCE_SECONDS, deadline.budget_seconds / 4), display.say) as lock:
            if lock is not None:
                note_needed(folder, [member.checkpoint for member in plan.members])
            work.conductor = conductor = work.conduct(plan, replace(setting, lock=lock))
            predicted_seconds = conductor.predicted_seconds()
            _announce(work, len(gpus), predicted_seconds)
            conductor.leave_out(impossible)
            try:
                with display.shown(), span("members"):
                    _work(conductor, work.submission, deadline, stop, display)
                with span("last look and write"):
                    _finish(conductor, work.submission, deadline)
            finally:
                conductor.kill()
            with span("summary"):
                return summarize(
                    work.battles, conductor, work.submission, deadline, stop, work.given, folder, predicted_seconds, about
                )
    finally:
        place.remove_temporary()


def _last_act(begun: Sequence[_Begun], deadline: Deadline, errors: TextIO) -> int:
    """What the watchdog does at the budget's end: kill the jobs; the exit code. `errors` may have stalled."""
    state, code = "it was too short to write anything", 1
    for work in begun:
        if work.conductor is not None:
            work.conductor.kill()
        if work.submission.written:
            state, code = "the file on disk is whole", exit_code(work.submission)
    if isinstance(errors, Unblocked):
        errors.write(f"warning: stopped at the budget's end, {clock(deadline.budget_seconds)}; {state}\n")
        errors.drain(LAST_WORDS_SECONDS)
    return code


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


def _lengths(battles: Battles) -> np.ndarray:
    """Characters (rows, 3) of each row's prompt and responses, NaN where these cannot be read."""
    place = {row_id: row for row, row_id in enumerate(battles.ids)}
    lengths = np.full((len(battles.ids), 3), np.nan)
    lengths[[place[row_id] for row_id in battles.frame["id"]]] = text_lengths(battles.frame)
    return lengths


def _tell(work: _Begun) -> None:
    """Say what was read, and what of it is not as the plan expects."""
    battles, say = work.battles, work.display.say
    say(f"{battles.path}: {len(battles.ids):,} rows; {battles.told}")
    if battles.bad_ids:
        say(f"{battles.path}: {unusable_line(battles)}")
    if note := told_of_ties(work.plan, battles):
        say(note if work.plan.ties else f"warning: {note}")


def _announce(work: _Begun, gpus: int, predicted_seconds: float) -> None:
    """Say what will be done, and on which GPUs, before anything starts."""
    plan, say = work.plan, work.display.say
    names = ", ".join(member.name for member in plan.members)
    say(f"{len(work.battles.ids):,} rows; the prior is on disk; members in order: {names}")
    if gpus < plan.target.gpus:
        there = (
            f"{gpus} visible here: its jobs are dealt over these" if gpus else "none visible here: members run on processors"
        )
        say(f"the plan is for {plan.target.gpus} GPUs of {plan.target.name}, {there}")
    needed = predicted_seconds * plan.margin
    text = f"predicted end {clock(predicted_seconds)}, {clock(needed)} with the margin of {plan.margin:g}"
    say(text + ("; what does not fit is skipped" if needed > work.submission.deadline.budget_seconds else ""))
