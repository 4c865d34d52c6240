"""The study of `zoo tune` as Optuna keeps it, every trial from its beginning.

A process that is killed leaves its trials RUNNING with what was drawn, and the next one goes on with them. Trials are pruned by
Optuna's median rule: one whose best held-out log loss so far is above the median of what the others had at the same share of
their training ends there. Hyperband would share out some hundreds of trials; people have a dozen. The Wilcoxon pruner wants the
loss of each row, which a training does not tell; all trials are judged on the same rows, so that their means compare well.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.experiments.study import importance, open_study, plain_errors
from zoo.experiments.tune.space import Space, Value, draw
from zoo.experiments.tune.together import OWN, Together, counts, taken_over
from zoo.scores.tuned import State, TriedSettings

STARTUP_TRIALS = 5  # that are drawn at random, the entry's own settings included, before the sampler models what went well
TRIALS_TO_PRUNE_BY = 3  # that have ended before one is compared with them
WARM_SHARE = 0.2  # of a training, in which none is ended: the learning rate has only just warmed up
LEAST_TOLD = 8  # finished trials below which nothing is said of what mattered
SETTINGS, DRAWN, FINGERPRINT, SECONDS, WHY, MADE = "settings", "drawn", "fingerprint", "seconds", "why", "made here"
SPENT, JUDGED = "spent seconds", "judged"
MEND = "move it away, or set ZOO_HOME to a folder of your own"


class Study:
    """A study by name, made where it is missing.

    In a SQLite file, or in a storage that processes share (a text).
    `own`: the entry's own values, the first trial. `together`: what several processes on it need; None where one has it.
    """

    def __init__(
        self, name: str, path: Path | str, space: Space, own: Mapping[str, Value], *, seed: int, facts: Mapping[str, Any]
    ) -> None:
        import optuna

        self.name, self.path, self.space, self._own = name, path, space, dict(own)
        with plain_errors(path, MEND):
            self._study = open_study(name, path, lambda: dict(facts))
            drawn = len(self._study.trials)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.sampler = optuna.samplers.TPESampler(
                    seed=seed + drawn, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True
                )
            self._study.pruner = optuna.pruners.MedianPruner(
                n_startup_trials=TRIALS_TO_PRUNE_BY, n_warmup_steps=round(100 * WARM_SHARE), n_min_trials=2
            )
            self.together = Together(self._study, self._own) if isinstance(path, str) else None
            if self.together:
                self.together.begin()
            elif not drawn:
                self._study.enqueue_trial(self._own, skip_if_exists=True)

    def interrupted(self) -> list[Any]:
        """Trials that a killed process, or the end of a budget, left before their end.

        None where processes share the study: another one may be at them.
        """
        import optuna

        if self.together:
            return []
        left = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        return [optuna.trial.Trial(self._study, trial._trial_id) for trial in left]  # there is no other way to go on with one

    def drawn(self) -> int:
        """How many trials there are, whatever came of them."""
        return sum(counts(trial) for trial in self._study.get_trials(deepcopy=False))

    def ask(self, most: int) -> Any:
        """A new trial; None where other processes have taken the last of so many meanwhile."""
        return self.together.ask(most) if self.together else self._study.ask()

    def draw(self, trial: Any) -> dict[str, Value]:
        """What a trial tries: nothing else than the entry's own settings where it is the first."""
        if not is_own(trial):
            return draw(self.space, trial)
        known = {name: knob for name, knob in self.space.knobs() if name in self._own}
        draw(Space(**known), trial)  # so that the sampler knows them, where the space has them
        return {}

    def note(self, trial: Any, facts: Mapping[str, Any]) -> None:
        """Keep facts of a trial, by the names above."""
        with taken_over():
            for key, value in facts.items():
                trial.set_user_attr(key, value)

    def report(self, trial: Any, share: float, loss: float) -> str:
        """Note an evaluation at a share of a training; why the trial is to end there.

        Empty where it is to go on.
        """
        step = round(100 * share)
        if step not in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values:  # else it was resumed
            with taken_over():
                trial.report(loss, step)
        if is_own(trial) or step >= 100 or not trial.should_prune():
            return ""
        return f"above the median of the others at {share:.0%} of the training"

    def complete(self, trial: Any, loss: float) -> None:
        """A trial has come to its end."""
        self._tell(trial, values=loss)

    def prune(self, trial: Any) -> None:
        """A trial was ended before its end; its last log loss is kept."""
        import optuna

        self._tell(trial, state=optuna.trial.TrialState.PRUNED)

    def fail(self, trial: Any) -> None:
        """A trial could not be trained: it counts, and nothing is learned of it."""
        import optuna

        self._tell(trial, state=optuna.trial.TrialState.FAIL)

    def _tell(self, trial: Any, **outcome: Any) -> None:
        with taken_over():
            self._study.tell(trial, **outcome)
        if self.together:
            self.together.drop(trial)

    def spend(self, seconds: float) -> None:
        """Note the wall clock of all runs of the study so far.

        Of a shared one, that of this process.
        """
        self._study.set_user_attr(SPENT + (f" by {self.together.name}" if self.together else ""), round(seconds, 1))

    @property
    def spent(self) -> float:
        """Seconds of wall clock that earlier runs took.

        Of a shared study, all of its processes, living ones too.
        """
        noted = self._study.user_attrs.items()
        return float(sum(seconds for key, seconds in noted if key == SPENT or key.startswith(f"{SPENT} by ")))

    def note_judged(self, fingerprint: str) -> int:
        """Note a winner that is judged; how many different ones were so far."""
        judged = list(dict.fromkeys([*self._study.user_attrs.get(JUDGED, []), fingerprint]))
        self._study.set_user_attr(JUDGED, judged)
        return len(judged)

    def facts_of(self, number: int) -> dict[str, Any]:
        """What was noted of a trial."""
        found: dict[str, Any] = self._study.get_trials(deepcopy=False)[number].user_attrs
        return found

    def trials(self) -> tuple[TriedSettings, ...]:
        """Every trial that was drawn, the first first."""
        from optuna.trial import TrialState

        states: dict[Any, State] = {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
            TrialState.RUNNING: "unfinished",
        }
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state not in states or not counts(trial):
                continue
            curve = tuple((step / 100, value) for step, value in sorted(trial.intermediate_values.items()))
            found.append(
                TriedSettings(
                    number=trial.number,
                    state=states[trial.state],
                    settings=trial.user_attrs.get(SETTINGS, {}),
                    drawn=trial.user_attrs.get(DRAWN, {}),
                    log_loss=trial.value if trial.value is not None else curve[-1][1] if curve else None,
                    curve=curve,
                    seconds=trial.user_attrs.get(SECONDS),
                    why=trial.user_attrs.get(WHY, ""),
                    is_own=trial.number > 0 and is_own(trial),
                )
            )
        return tuple(found)


def is_own(trial: Any) -> bool:
    """Whether a trial is the entry as it is: the first, or one that takes its place."""
    return trial.number == 0 or bool(trial.user_attrs.get(OWN))


def importance_of(trials: tuple[TriedSettings, ...]) -> dict[str, float]:
    """What mattered among the trials that ran to their end.

    Empty where these are too few to tell.
    """
    ended = [trial for trial in trials if trial.state == "complete" and trial.log_loss is not None]
    if len(ended) < LEAST_TOLD:
        return {}
    names = [name for name in Space.model_fields if all(name in trial.drawn for trial in ended)]
    return importance({name: [trial.drawn[name] for trial in ended] for name in names}, [t.log_loss or 0.0 for t in ended])


def best_of(trials: tuple[TriedSettings, ...]) -> TriedSettings:
    """The trial with the lowest log loss; of equals the first.

    So the entry as it is comes before others. ZooError where none has ended.
    """
    ended = [trial for trial in trials if trial.state == "complete" and trial.log_loss is not None]
    if not ended:
        raise ZooError("no trial has ended; run the command again to go on with those that were begun", exit_code=1)
    return min(ended, key=lambda trial: (trial.log_loss or 0.0, trial.number))
