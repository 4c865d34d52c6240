"""A study's trials, run until they are enough or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from zoo.contracts import Entry, Held, Input, Say, TrainRequest, changed
from zoo.errors import ZooError, amount
from zoo.experiments.cards import Cards
from zoo.experiments.needs import need_of
from zoo.experiments.tune.pace import check_budget, expected_seconds
from zoo.experiments.tune.rows import HeldRows
from zoo.experiments.tune.space import Space, Value, differing, with_drawn
from zoo.experiments.tune.study import DRAWN, FINGERPRINT, MADE, SECONDS, SETTINGS, WHY, Study, best_of, is_own
from zoo.experiments.tune.together import TakenOver
from zoo.experiments.tune.training import Following, drop_unfinished, train
from zoo.pipeline.chain import train_requests
from zoo.pipeline.runner import Stopped
from zoo.report.duration import format_seconds
from zoo.scores.metric_names import LOG_LOSS
from zoo.scores.tuned import TriedSettings
from zoo.settings import home
from zoo.store import find, fingerprint, remove_artifact
from zoo.targets import visible_gpus
from zoo.tracking.home import public

TRIALS, BUDGET, INTERRUPT = "trials", "budget", "interrupted"
IN_STORE = "trained before, in the store"
SPEND_SECONDS = 5.0  # between two notes of what was spent
WAIT_SECONDS = 1.0  # between two looks at whether other processes have ended their trials


@dataclass(frozen=True)
class TuneOptions:
    """What a tuning is asked for.

    `trials` in all, those of earlier runs of the same study among them, and so is the wall clock of `budget_seconds`. `space`
    None: the default one. `jobs` None: as many trainings at a time as the GPUs take.
    """

    battles: Path
    held: Held
    trials: int
    budget_seconds: float | None = None
    space: Space | None = None
    jobs: int | None = None
    seed: int = 0
    source: str | None = None


@dataclass(frozen=True)
class Setting:
    """What all trials of a study share."""

    entry: Entry
    rows: HeldRows
    battles: Input
    held: Held
    base: Input
    store: Path

    def entry_with(self, drawn: Mapping[str, Value]) -> Entry:
        """The entry with what a trial drew."""
        assert self.entry.train is not None
        return changed(self.entry, train=with_drawn(self.entry.train, drawn))

    def requests(self, entry: Entry) -> list[TrainRequest]:
        """The trainings of an entry on this data."""
        return train_requests(entry, self.store, base=self.base, battles=self.battles, held=self.held)


class Tuner:
    """Runs a study's trials, several at a time, until they are enough or the budget is spent."""

    def __init__(self, shared: Setting, study: Study, options: TuneOptions, say: Say) -> None:
        self.shared, self.study, self.options, self.say = shared, study, options, say
        gpus = visible_gpus()
        assert shared.entry.train is not None
        self.jobs = options.jobs or max(1, len(gpus) // shared.entry.train.gpus)
        self.cards = Cards(gpus, self.jobs, shared.store)
        self.ended_by = TRIALS
        self._started, self._before, self._noted = time.monotonic(), study.spent, 0.0
        self._waits_for_others = False
        self._waiting = study.interrupted()
        self._running: dict[int, Following] = {}
        self._failed: set[int] = set()  # trials of this run; another run may have what these lacked
        self._gate = Lock()
        self._stopped = ""

    def spent(self) -> float:
        """Seconds of wall clock of all runs of the study."""
        return self._before + time.monotonic() - self._started

    def entry_of(self, trial: TriedSettings) -> Entry:
        """The entry with a trial's settings."""
        return self.shared.entry if trial.is_default else self.shared.entry_with(trial.drawn)

    def run(self) -> None:
        """Run what is missing of the trials.

        What is interrupted is left as it is for the next run of the same command.
        """
        done = self.study.drawn()
        if done:
            left = f", {len(self._waiting)} of them to be finished" if self._waiting else ""
            self.say(f"going on with study {self.study.name!r}: {amount(done, 'trial')}{left}")
        else:
            self.say(f"study {self.study.name!r}: {amount(self.options.trials, 'trial')}, {self.jobs} at a time")
        if not any(trial.state == "complete" for trial in self.study.trials()):
            check_budget(
                self.options.budget_seconds, self._before, self.shared.requests(self.shared.entry)[-1], self.shared.store
            )
        beating = self.study.together.beating() if self.study.together else nullcontext()
        with beating, ThreadPoolExecutor(self.jobs) as pool:
            workers = [pool.submit(self._work) for _ in range(self.jobs)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:  # the others end, too, and what they have done is kept
                self._stop(INTERRUPT)
                raise
        if not any(trial.state == "complete" for trial in self.study.trials()) and self.ended_by == BUDGET:
            asked = format_seconds(self.options.budget_seconds or 0)
            raise ZooError(
                f"--budget: {asked} ended before one training did; give more, and the same command goes on with it", exit_code=1
            )

    def _stop(self, why: str) -> None:
        with self._gate:
            self._stopped = self._stopped or why
            for following in self._running.values():
                following.stop(why)

    def _work(self) -> None:
        """Run trials one after the other until there are no more."""
        try:
            while (trial := self._next()) is not None:
                self._one(trial)
        except BaseException:
            self._stop(INTERRUPT)
            raise

    def _next(self) -> Any:
        """The next trial, those that were left unfinished first.

        None where no more is to begin.
        """
        while True:
            with self._gate:
                if self._stopped or self._is_over():
                    return None
                self._revive()
                if self._waiting:
                    return self._waiting.pop(0)
                if self.study.drawn() < self.options.trials:
                    if trial := self.study.ask(self.options.trials):
                        return trial
                elif not self._others():
                    return None
            time.sleep(WAIT_SECONDS)

    def _revive(self) -> None:
        for number in self.study.together.revive() if self.study.together else []:
            self.say(f"trial {number}: the process that trained it has ended; it is tried again")

    def _others(self) -> int:
        """Trials that other processes are at, and which may come back; said once."""
        others = self.study.together.others() if self.study.together else 0
        if others and not self._waits_for_others:
            self.say(f"waiting for {amount(others, 'trial')} of other processes")
        self._waits_for_others = bool(others)
        return others

    def _is_over(self) -> bool:
        budget = self.options.budget_seconds
        if budget is not None and self.spent() >= budget:
            self.ended_by = BUDGET
            return True
        return False

    def _one(self, trial: Any) -> None:
        """Run a trial; one that others took over meanwhile is theirs."""
        try:
            self._try(trial)
        except TakenOver:
            self.say(f"trial {trial.number}: another process took it over; what was done here is left")

    def _try(self, trial: Any) -> None:
        """Draw a trial's settings, train with them, and tell the study what came of it."""
        drawn = self.study.draw(trial)
        entry = self.shared.entry_with(drawn)
        assert entry.train is not None and self.shared.entry.train is not None
        requests = self.shared.requests(entry)
        settings, key = differing(entry.train, self.shared.entry.train), fingerprint(requests[-1])
        self.study.note(trial, {SETTINGS: settings, DRAWN: drawn or dict(trial.params)})
        told = ", ".join(f"{name} {value:g}" for name, value in settings.items()) or "as the entry is"
        if self._is_known(trial, key):
            return
        self.study.note(trial, {FINGERPRINT: key})
        if not self._fits(entry):
            self.study.note(trial, {WHY: "would not end in what is left of the budget"})
            with self._gate:
                self.ended_by = BUDGET
                self._stopped = self._stopped or BUDGET
            self._leave(trial, BUDGET)
            return
        self.study.note(trial, {WHY: "", MADE: find(self.shared.store, requests[-1]) is None})
        self.say(f"trial {trial.number}: {told}")
        self._train(trial, entry, requests)

    def _train(self, trial: Any, entry: Entry, requests: Sequence[TrainRequest]) -> None:
        began = time.monotonic()
        following = Following(lambda share, loss: self._evaluated(trial, share, loss), self._look)
        with self._gate:
            self._running[trial.number] = following
            if self._stopped == INTERRUPT:  # since this trial was asked for
                following.stop(INTERRUPT)
        prefixed = _saying(self.say, trial.number)
        try:
            need = need_of(entry, self.shared.store)
            artifact = train(requests, entry, self.shared.store, self.cards, need, following, say=prefixed)
        except Stopped:
            self._note_seconds(trial, began)
            if following.why in (BUDGET, INTERRUPT):
                self.study.note(trial, {WHY: f"ended by the {BUDGET}" if following.why == BUDGET else INTERRUPT})
                self._leave(trial, following.why)
                return
            self.study.note(trial, {WHY: following.why})
            self.study.prune(trial)
            drop_unfinished(requests[-1], self.shared.store)
            prefixed(f"pruned: {following.why}")
        except ZooError as error:
            if is_own(trial):
                raise  # so would all others
            self._note_seconds(trial, began)
            self.study.note(trial, {WHY: public(str(error))})
            self.study.fail(trial)  # its folder stays: the error names the log there
            self._failed.add(trial.number)
            prefixed(f"failed: {error}")
        else:
            if self.study.facts_of(trial.number).get(MADE):
                self._note_seconds(trial, began)
            else:  # no time that a training takes
                self.study.note(trial, {WHY: IN_STORE})
            self.study.complete(trial, artifact.manifest.metrics[LOG_LOSS])
            prefixed(f"held-out log loss {artifact.manifest.metrics[LOG_LOSS]:.4f}")
            self._free_losers()
        finally:
            with self._gate:
                self._running.pop(trial.number, None)

    def _leave(self, trial: Any, why: str) -> None:
        """Leave a trial before its end: to the others at once, or as it is to the next run of this command."""
        if self.study.together:
            self.study.together.give_back(trial, why)

    def _note_seconds(self, trial: Any, began: float) -> None:
        """Add what a trial took now to what earlier runs of it took."""
        before = self.study.facts_of(trial.number).get(SECONDS, 0.0)
        self.study.note(trial, {SECONDS: round(before + time.monotonic() - began, 1)})

    def _is_known(self, trial: Any, key: str) -> bool:
        """Whether a trial of equal settings has come to an end.

        Then this one has, too, without a training.
        """
        for other in self.study.trials():
            facts = self.study.facts_of(other.number)
            has_ended = other.state in ("complete", "pruned") or other.number in self._failed
            if other.number == trial.number or facts.get(FINGERPRINT) != key or not has_ended:
                continue
            self.study.note(trial, {FINGERPRINT: key, WHY: f"the same settings as trial {other.number}", SECONDS: 0.0})
            for share, loss in other.curve:
                self.study.report(trial, share, loss)
            if other.state == "complete" and other.log_loss is not None:
                self.study.complete(trial, other.log_loss)
            elif other.state == "failed":
                self.study.fail(trial)
            else:
                self.study.prune(trial)
            self.say(f"trial {trial.number}: the same settings as trial {other.number}, not trained again")
            return True
        return False

    def _evaluated(self, trial: Any, share: float, loss: float) -> str:
        self.say(f"trial {trial.number}: held-out log loss {loss:.4f} at {share:.0%}")
        return self.study.report(trial, share, loss)

    def _look(self) -> str:
        """Note what is spent now and then; whether the budget has ended."""
        with self._gate:
            if time.monotonic() - self._noted >= SPEND_SECONDS:
                self._noted = time.monotonic()
                self.study.spend(self.spent())
            return BUDGET if self._is_over() else ""

    def _fits(self, entry: Entry) -> bool:
        """Whether a training ends in what is left of the budget, by the trials that have ended."""
        budget, expected = self.options.budget_seconds, expected_seconds(self.study.trials(), self.shared.entry, entry)
        return budget is None or expected is None or self.spent() + expected <= budget

    def _free_losers(self) -> None:
        """Remove the adapters of trials that lost.

        The entry's own stays, and so does what was there before the study.
        """
        with self._gate:
            trials = self.study.trials()
            best = best_of(trials)
            for trial in trials:
                facts = self.study.facts_of(trial.number)
                if trial.state != "complete" or trial.is_default or trial.number == best.number or not facts.get(MADE):
                    continue
                folder = self.shared.store / f"train-{facts[FINGERPRINT]}"
                if folder.exists() and facts[FINGERPRINT] != self.study.facts_of(best.number).get(FINGERPRINT):
                    with suppress(ZooError):  # somebody uses it: then it stays
                        remove_artifact(folder, home())


def _saying(say: Say, number: int) -> Say:
    return lambda line: say(f"trial {number}: {line}")
