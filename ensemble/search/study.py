"""The study of a build: Optuna's trials of plans that fit, judged as the exact ones are.

What the exact search and the simple candidates found is tried first; the rest is drawn from `space`. Each trial's weights are
fitted exactly and its losses are out of fold, by the rehearsal's own folds, on at most FEW_ROWS rows. The study is kept in
SQLite under a name that says what it is of, and goes on where it stopped. Whether it changes the plan, `challenge` says.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.plan import ROUNDING, PlanStudy
from ensemble.pools.crossfit import Evaluator
from ensemble.search.coverage import cover
from ensemble.search.decide import SearchLimits
from ensemble.search.draws import OfTrial, parameters
from ensemble.search.measure import BY_ROWS, Measure
from ensemble.search.prices import Budget
from ensemble.search.problem import Candidate, Problem
from ensemble.search.rehearse import rehearsed_folds
from ensemble.search.robust import Groups, words
from ensemble.search.space import Drawn, Space
from ensemble.search.study_file import DIGEST, ERROR, FEASIBLE, MEMBERS, PROPOSED_BY, SECONDS, SOME_ROWS, StudyFile
from zoo.errors import amount
from zoo.experiments.study import quiet
from zoo.report.text import as_budget
from zoo.scores.metrics import log_loss_rows
from zoo.tracking.spans import open_span

STARTUP_TRIALS = 15  # that are drawn at random, known plans included, before the sampler models what went well
BEYOND = "seconds beyond the budget"  # the constraint: zero or less where the plan fits


@dataclass(frozen=True)
class Tried:
    """What a study left, each plan once.

    `losses` (plans, rows), the mean over repeats of folds. The rows are those of the problem `thinned`, as those of `measure`
    are, by which plans are compared.
    """

    kept: PlanStudy
    plans: tuple[Drawn, ...]
    losses: np.ndarray
    measure: Measure = BY_ROWS

    def preferred(self, rows: np.ndarray) -> Drawn:
        """The plan that did best on `rows` (bool, rows)."""
        measure = self.measure.on(rows)
        return self.plans[int(np.argmin([measure.score(losses[rows]) for losses in self.losses]))]


def run_study(
    problem: Problem,
    budget: Budget,
    limits: SearchLimits,
    known: Mapping[str, Candidate],
    *,
    target: str,
    coverage: bool,
    groups: Groups | None = None,
) -> Tried | None:
    """Run, or go on with, the study of this problem; None, and the reason said, without a trial.

    `known`: what is tried first, by the name under which the plan would show it. `groups`: what each trial is fitted without
    in turn, and compared by, in place of folds.
    """
    ends = time.monotonic() + (np.inf if limits.timeout_seconds is None else limits.timeout_seconds)
    ordered = _in_order(known)
    space = Space(problem, budget.available, coverage=coverage, known=ordered.values())
    name = study_name(space, budget, target, groups)
    if not space.pools:
        problem.say(f"no study: a fit of --pool {' --pool '.join(problem.pools)} takes too long for trials")
        return None
    kept = StudyFile(name, limits.storage, lambda: facts_of(problem, budget, target, groups))
    trials = _Trials(space, Judge(problem, groups))
    done = kept.finished()[: limits.trials]
    study = _new_study(limits.seed + len(done))
    study.add_trials(done)
    if done:
        problem.say(f"going on with study {name!r}: it has {amount(len(done), 'trial')}")
        trials.judge_again(study.trials, ends)
    wanted, left = limits.trials - len(done), ends - time.monotonic()
    if wanted > 0 and left > 0:
        problem.say(f"study {name!r}: {amount(wanted, 'trial')}")
        _enqueue(study, space, ordered)
        timeout, catch = (None if left == np.inf else left), (ArithmeticError, np.linalg.LinAlgError)
        study.optimize(
            trials.run, n_trials=wanted, timeout=timeout, n_jobs=limits.n_jobs, catch=catch, callbacks=[_adding(kept)]
        )
    if not trials.fitting:
        problem.say("the study had no time for a trial: the plan is the exact search's")
        return None
    return trials.left(name, limits.storage)


def study_name(space: Space, budget: Budget, target: str, groups: Groups | None = None) -> str:
    """The study's name, the same for the same problem.

    Target and budget (of what has prices), members and data for people, and a digest of it all.
    """
    members, pricing = space.problem.members, space.problem.prices.pricing
    digest = hashlib.sha256(f"{members.digest} {budget.available:.3f} {space.problem.position_bias} {space.signature}".encode())
    told = (members.p, members.y, members.folds, members.groups, members.characters)
    for array in (*told, pricing.row_seconds, pricing.load_seconds, pricing.wide):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(f"{pricing.devices} {pricing.rows} {pricing.processes}".encode())  # by these too plans fit or do not
    if groups is not None:
        digest.update(f"{groups.asked} {groups.names}".encode() + np.ascontiguousarray(groups.of).tobytes())
    count = amount(len(members.names), "member")
    where = (target, as_budget(budget.seconds)) if any(cost.priced for cost in members.costs) else ("tables",)
    told_as = (*where, count, Path(members.data).stem, digest.hexdigest()[:8])
    return " ".join(filter(None, told_as))


class Judge:
    """Losses of plans out of fold, equal plans judged once.

    By all of the rehearsal's folds, or out of `groups`.
    """

    def __init__(self, problem: Problem, groups: Groups | None = None) -> None:
        self.few = problem.thinned()
        self.measure = Measure(groups).on(problem.thinned_rows)
        held = self.measure.held
        self.folds = rehearsed_folds(self.few) if held is None else held.of[None]
        self._known: dict[tuple[object, ...], np.ndarray] = {}

    @cached_property
    def _evaluators(self) -> tuple[Evaluator, ...]:
        members = self.few.members
        if self.measure.held is not None:
            return (Evaluator(members.names, members.p, members.y, self.folds[0], prompts=members.groups),)
        others = [Evaluator(members.names, members.p, members.y, folds) for folds in self.folds[1:]]
        return (self.few.evaluator, *others)  # the first knows what the exact search judged

    def losses(self, drawn: Drawn) -> np.ndarray:
        """Losses (rows,), the mean over repeats."""
        if drawn.key not in self._known:
            self._known[drawn.key] = np.mean([self._once(drawn, evaluator) for evaluator in self._evaluators], axis=0)
        return self._known[drawn.key]

    def _once(self, drawn: Drawn, evaluator: Evaluator) -> np.ndarray:
        if not drawn.work:
            return log_loss_rows(evaluator.oof(drawn.whole, drawn.spec), evaluator.y)
        characters, seconds = self.few.members.characters, self.few.prices.pricing.row_seconds
        return cover(evaluator, drawn.spec, characters, seconds, drawn.whole, list(drawn.work.items())).losses


class _Trials:
    """The objective of a study, and what its trials came to, by their number."""

    def __init__(self, space: Space, judge: Judge) -> None:
        self.space, self.judge = space, judge
        self.drawn: dict[int, Drawn] = {}
        self.losses: dict[int, np.ndarray] = {}
        self.fitting: set[int] = set()
        self._span = open_span()  # trials may run in threads, which have none of their own

    def run(self, trial: Any) -> float:
        """One trial: its mean log loss out of fold."""
        began, drawn = time.monotonic(), self.space.draw(OfTrial(trial))
        prices = self.space.problem.prices
        seconds = prices.seconds_with(drawn.whole, drawn.work)
        beyond = seconds - self.space.available * (1 + ROUNDING)
        trial.set_constraint(BEYOND, beyond)
        losses = self.judge.losses(drawn)
        loss, error = self.judge.measure.score_and_error(losses, self.judge.few.members.groups)
        for key, value in (
            (MEMBERS, self._members(drawn)),
            (SECONDS, round(seconds, 1)),
            (FEASIBLE, beyond <= 0),
            (ERROR, error),
        ):
            trial.set_user_attr(key, value)
        self._note(trial.number, drawn, losses, fits=beyond <= 0)
        family = f"trials of {drawn.spec.pool} pools"
        self._span.piece(family, began, time.monotonic(), most=1, trials=1, fitting=int(beyond <= 0))
        return loss

    def judge_again(self, finished: list[Any], ends: float) -> None:
        """Judge the finished trials of an earlier run, the best first, while there is time: only numbers were kept."""
        import optuna

        for trial in sorted(finished, key=lambda trial: float(trial.value)):
            if time.monotonic() >= ends:
                return
            drawn = self.space.draw(OfTrial(optuna.trial.FixedTrial(trial.params, number=trial.number)))
            fits = all(value <= 0 for value in trial.constraints.values())
            self._note(trial.number, drawn, self.judge.losses(drawn), fits=fits)

    def left(self, name: str, storage: Path | None) -> Tried:
        """What the contest needs of the trials so far: plans that fit, in the order of their first trial."""
        plans = {self.drawn[number].key: number for number in sorted(self.fitting, reverse=True)}
        numbers = sorted(plans.values())
        kept = PlanStudy(
            name=name,
            storage=storage.name if storage else None,
            trials=len(self.losses),
            feasible=len(self.fitting) / len(self.losses),
            plans=len(numbers),
        )
        losses = np.stack([self.losses[number] for number in numbers])
        return Tried(kept, tuple(self.drawn[number] for number in numbers), losses, self.judge.measure)

    def _note(self, number: int, drawn: Drawn, losses: np.ndarray, *, fits: bool) -> None:
        self.drawn[number], self.losses[number] = drawn, losses
        if fits:
            self.fitting.add(number)

    def _members(self, drawn: Drawn) -> list[str]:
        names = self.space.names
        return [*(names[j] for j in drawn.whole), *(f"{names[j]}{SOME_ROWS}" for j in drawn.work)]


# --- Optuna -----------------------------------------------------------------------------------------------------------------


def _in_order(known: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """The plans to try first: what the search found before what is simple, so that few trials have the best of them."""
    return dict(reversed(list(known.items())))


def facts_of(problem: Problem, budget: Budget, target: str, groups: Groups | None = None) -> dict[str, Any]:
    """What a study is of, as its attributes."""
    members = problem.members
    priced = {
        "target": target,
        "rows to predict": problem.prices.pricing.rows,
        "budget": as_budget(budget.seconds),
        "margin": budget.margin,
    }
    return {
        "data": members.data or "unnamed",
        DIGEST: members.digest,
        "rows with labels": len(members.y),
        "members": list(members.names),
        "code version": _code_version(),
        **({} if groups is None else {"compared by": words(groups.asked, groups.names)}),
        **(priced if any(cost.priced for cost in members.costs) else {}),
    }


def _code_version() -> str:
    from zoo.pipeline.provenance import git_commit

    return " ".join(filter(None, (importlib.metadata.version("preference-zoo"), (git_commit() or "")[:12])))


def _enqueue(study: Any, space: Space, known: Mapping[str, Candidate]) -> None:
    """Have what is known tried first, each plan once, unless an earlier run did."""
    for name, candidate in known.items():
        wanted = parameters(space, candidate)
        if wanted is not None:
            study.enqueue_trial(wanted, user_attrs={PROPOSED_BY: name}, skip_if_exists=True)


def _adding(kept: StudyFile) -> Callable[[Any, Any], None]:
    """What Optuna calls after each trial; one that failed is kept by nobody."""
    from optuna.trial import TrialState

    return lambda _, trial: kept.add(trial) if trial.state == TrialState.COMPLETE else None


def _new_study(seed: int) -> Any:
    """A study in memory; SQLite gets each trial when it has ended, since it commits every parameter by itself."""
    import optuna

    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", optuna.exceptions.ExperimentalWarning
        )  # `group`: since 2.8, and pyproject.toml bounds it
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True)
    return optuna.create_study(sampler=sampler)
