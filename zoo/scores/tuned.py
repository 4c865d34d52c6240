"""What `zoo tune` leaves: its trials, and how the best of them did where it was not chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zoo.contracts import Contract
from zoo.contracts.base import added_later

State = Literal["complete", "pruned", "failed", "unfinished"]
Setting = bool | int | float


class TriedSettings(Contract):
    """One trial: settings of [train] that are not the entry's, and how its training went.

    `log_loss` of the rows to choose by, for a pruned trial where it was ended; `curve`: (share of the training, log loss) at
    each evaluation; `seconds` of the training's wall clock; `why`: what ended it before its end.
    """

    number: int
    state: State
    settings: dict[str, Setting]
    drawn: dict[str, Setting]
    log_loss: float | None = None
    curve: tuple[tuple[float, float], ...] = ()
    seconds: float | None = None
    why: str = ""
    is_own: bool = added_later(False, description="in place of a first trial whose process was killed")

    @property
    def is_default(self) -> bool:
        """Whether it is the entry as it is: the first trial of every study, or what took its place."""
        return self.number == 0 or self.is_own


class ComparedOn(Contract):
    """The best trial against the entry's own settings on the same rows.

    `own` and `best` are log losses in nats.

    `difference`: best less own, in nats, negative where the best is better; `error`: its standard error by prompts.
    """

    rows: int
    prompts: int
    own: float
    best: float
    difference: float
    error: float


class TuneReport(Contract):
    """A study of an entry's training.

    `choosing`: on the rows by which the best was chosen, where it flatters; `judging`: on rows of other prompts of the same
    fold. None where the best trial is the entry as it is. `judged`: how many different winners were judged on these rows so
    far. `spent_seconds`: wall clock of all runs of the study. `importance`: shares of the variance of log
    loss. `guessing`: the log loss of even shares, in nats.
    """

    entry: str
    data: str
    dataset_digest: str
    fold: int
    n_folds: int
    study: str
    storage: str
    trials: tuple[TriedSettings, ...]
    best: int
    rows_to_choose: int
    prompts_to_choose: int
    rows_to_judge: int
    prompts_to_judge: int
    choosing: ComparedOn | None = None
    judging: ComparedOn | None = None
    judged: int = 0
    importance: dict[str, float] = Field({})
    guessing: float
    ended_by: str
    spent_seconds: float

    @property
    def winner(self) -> TriedSettings:
        """The trial with the lowest log loss on the rows to choose by."""
        return next(trial for trial in self.trials if trial.number == self.best)

    @property
    def own(self) -> TriedSettings:
        """The entry as it is."""
        return next(trial for trial in self.trials if trial.is_default)

    @property
    def is_told(self) -> bool:
        """Whether the best is better on the rows to judge by, by more than twice the error of that."""
        return self.judging is not None and self.judging.difference < -2 * self.judging.error

    @property
    def is_better(self) -> bool:
        """Whether the best is better there at all."""
        return self.judging is not None and self.judging.difference < 0
