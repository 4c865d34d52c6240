"""Several processes on one study: trials that are done once, and those of dead ones again.

Optuna's heartbeats are of its RDB storage and of `study.optimize` alone; a journal has none, and a training is asked for and
told. So each process says every BEAT_SECONDS, in the study itself, that it works on its trials. One that says nothing new for
GRACE_SECONDS by the watcher's own clock is dead: no two hosts' clocks are compared. Its trial is FAILED, which a storage does
once and for the first who asks, and what it had drawn is put into the queue again, of which each trial is taken once.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

BEAT_SECONDS = 10.0
GRACE_SECONDS = 60.0  # six beats: a busy host or a slow folder is not dead
OWNER, BEAT, OWN = "process", "beat", "the entry as it is"
GONE = "taken back"  # why a failed trial counts for nothing: it was, or is to be, done by another one


class TakenOver(Exception):
    """A trial that others took for dead: this process was stopped for longer than the grace."""


class Together:
    """The part of one process in a study that others work on, too."""

    def __init__(self, study: Any, own: Mapping[str, Any]) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._study, self._own = study, dict(own)
        self._held: dict[int, Any] = {}
        self._seen: dict[int, tuple[object, float]] = {}  # by trial: its last beat, and when that was new here

    def begin(self) -> None:
        """Queue the entry's own settings as the first trial of a new study."""
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(self._own, user_attrs={OWN: True}, skip_if_exists=True)

    def ask(self, most: int) -> Any:
        """A trial that is this process's now.

        None where others have taken the last of so many meanwhile.
        """
        trial = self._study.ask()
        with taken_over():
            trial.set_user_attr(OWNER, self.name)
            trial.set_user_attr(BEAT, 0)
        earlier = [t for t in self._trials() if counts(t) and t.number < trial.number]
        is_second = bool(trial.user_attrs.get(OWN)) and any(t.user_attrs.get(OWN) for t in earlier)
        if len(earlier) >= most or is_second:
            self._take_back(trial, "one more than was asked for")
            return None
        self._held[trial.number] = trial
        return trial

    def drop(self, trial: Any) -> None:
        """A trial has ended; no more is said of it."""
        self._held.pop(trial.number, None)

    def give_back(self, trial: Any, why: str) -> None:
        """Leave a trial that this process does not end to the others, or to a later run."""
        self.drop(trial)
        frozen = self._trials()[trial.number]
        if self._take_back(trial, why):
            self._again(frozen)

    def others(self) -> int:
        """How many trials other processes work on."""
        from optuna.trial import TrialState

        return sum(t.state == TrialState.RUNNING and t.user_attrs.get(OWNER) != self.name for t in self._trials())

    def revive(self) -> list[int]:
        """Queue the trials of dead processes again; which those were."""
        import optuna
        from optuna.trial import TrialState

        dead, now = [], time.monotonic()
        for trial in self._trials():
            if trial.state != TrialState.RUNNING or trial.user_attrs.get(OWNER) == self.name:
                self._seen.pop(trial.number, None)
                continue
            beat = (trial.user_attrs.get(OWNER), trial.user_attrs.get(BEAT))
            known, since = self._seen.get(trial.number, (None, now))
            if known != beat:
                self._seen[trial.number] = (beat, now)
            elif now - since > GRACE_SECONDS and self._take_back(
                optuna.trial.Trial(self._study, trial._trial_id), "its process ended"
            ):
                self._again(trial)
                dead.append(trial.number)
        return dead

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Say while the block runs that this process works on its trials."""
        ended = threading.Event()

        def beat() -> None:
            count = 0
            while not ended.wait(BEAT_SECONDS):
                count += 1
                for trial in list(self._held.values()):
                    with suppress(Exception):  # what is wrong with a storage, the trials themselves come upon
                        trial.set_user_attr(BEAT, count)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _trials(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))

    def _take_back(self, trial: Any, why: str) -> bool:
        """Fail a trial that counts for nothing; whether it was this process that did."""
        import optuna

        try:
            trial.set_user_attr(GONE, why)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            return False
        return True

    def _again(self, trial: Any) -> None:
        """Queue what a trial had drawn."""
        is_own = bool(trial.user_attrs.get(OWN))
        facts = {OWN: True} if is_own else {}
        self._study.enqueue_trial(self._own if is_own else trial.params, user_attrs=facts)


def counts(trial: Any) -> bool:
    """Whether a trial was drawn, and neither left to others nor one too many."""
    from optuna.trial import TrialState

    return trial.state != TrialState.WAITING and not (trial.state == TrialState.FAIL and GONE in trial.user_attrs)


@contextmanager
def taken_over() -> Iterator[None]:
    """TakenOver where the storage says that a trial has ended, which this process did not end."""
    import optuna

    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError as error:
        raise TakenOver from error
    except ValueError as error:
        if "Cannot tell a" not in str(error):
            raise
        raise TakenOver from error
