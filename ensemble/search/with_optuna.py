"""Optuna's search over members, pools, shrinkage and gates.

It serves where there are too many members for all subsets. Each trial solves its weights exactly and is judged out of fold;
the budget is a constraint. Baselines and the solution of `ensemble.search.subsets` are enqueued, so the study starts where
others end. It is kept in SQLite and goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.pools.blend import AS_IS, BlendSpec
from ensemble.search.judging import judge_gated
from ensemble.search.problem import Candidate, Problem
from ensemble.search.subsets import Searched, Subset

DEFAULT_TRIALS = 60
NONE, AS_IS_POOL = "none", "as is"
_RECALLED = 5


@dataclass(frozen=True)
class Study:
    """What a search left: candidates that fit, best first, and how many trials there were.

    `in_sample` is the least linear-pool loss of its subsets.
    """

    candidates: tuple[Candidate, ...]
    in_sample: float
    trials: int


@dataclass(frozen=True)
class SearchLimits:
    """How long to search: trials of the study in all, seconds, threads.

    `storage`: the SQLite file, None for memory.
    """

    trials: int = DEFAULT_TRIALS
    timeout_seconds: float | None = 120.0
    n_jobs: int = 1
    storage: Path | None = None
    seed: int = 0


def search_with_optuna(
    problem: Problem, available: float, searched: Searched, limits: SearchLimits, *, coverage: bool = True
) -> Study:
    """Run, or go on with, the study of this problem; `searched` gives the subsets to start from."""
    study = _open_study(study_name(problem, available, coverage), limits)
    if not study.trials:
        for parameters in _starts(problem, searched):
            study.enqueue_trial(parameters)
    found: dict[int, Candidate] = {}
    in_sample: list[float] = [searched.subsets[0].loss] if searched.subsets else []

    def objective(trial: Any) -> float:
        whole, spec, gated = _suggest(trial, problem, coverage)
        candidate = _evaluate(problem, whole, spec, gated, available)
        seconds = candidate.seconds if candidate else problem.prices.seconds(whole or (0,))
        trial.set_constraint("seconds", seconds - available if whole else 1.0)
        trial.set_user_attr("seconds", seconds)
        if candidate is None:
            return float(np.log(3)) + max(0.0, seconds / available - 1)
        in_sample.append(problem.fitter.score(whole).loss)
        trial.set_user_attr("in_sample_linear", in_sample[-1])
        trial.set_user_attr("members", [problem.members.names[j] for j in candidate.members])
        found[trial.number] = candidate
        return candidate.loss

    done = sum(trial.state.is_finished() for trial in study.trials)
    if done:
        problem.say(f"going on with study {study.study_name}: {done} trials are there")
        _recall(study, objective)
    if limits.trials > done:
        study.optimize(objective, n_trials=limits.trials - done, timeout=limits.timeout_seconds, n_jobs=limits.n_jobs)
    ranked = sorted(found.values(), key=lambda c: (c.loss, c.seconds))
    finished = sum(trial.state.is_finished() for trial in study.trials)
    return Study(tuple(ranked), min(in_sample, default=np.inf), finished)


def _open_study(name: str, limits: SearchLimits) -> Any:
    """The Optuna study of this name, made or gone on with."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    storage = None
    if limits.storage is not None:
        limits.storage.parent.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{limits.storage}"
    sampler = optuna.samplers.TPESampler(seed=limits.seed, n_startup_trials=15, multivariate=True)
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, sampler=sampler)


def study_name(problem: Problem, available: float, coverage: bool) -> str:
    """The study's name: the same problem has the same one.

    Data, tables, prices, seconds and code-visible choices make it.
    """
    digest = hashlib.sha256(f"{problem.members.digest} {available:.3f} {coverage} {list(problem.specs)}".encode())
    digest.update("\n".join(problem.members.names).encode())
    for array in (problem.members.p, problem.prices.pricing.row_seconds, problem.prices.pricing.load_seconds):
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"blend-{digest.hexdigest()[:16]}"


def _starts(problem: Problem, searched: Searched) -> list[dict[str, Any]]:
    """Trials to begin with: what simpler methods would take.

    The best affordable subsets found, the best single member, and members greedily by loss.
    """
    singles = sorted(range(len(problem.members.names)), key=lambda j: problem.fitter.score((j,)).loss)
    subsets: list[Subset] = [scored.members for scored in searched.subsets[:4]]
    subsets += [(singles[0],), *(tuple(singles[:k]) for k in (2, 3))]
    starts: list[dict[str, Any]] = []
    for place, subset in enumerate(dict.fromkeys(subsets)):
        chosen = {f"use {name}": j in subset for j, name in enumerate(problem.members.names)}
        for pool in ("logistic", "linear") if place == 0 else ("logistic",):
            starts.append({**chosen, "pool": pool, "gate": NONE})
    return starts


def _suggest(trial: Any, problem: Problem, coverage: bool) -> tuple[Subset, BlendSpec, int | None]:
    names = problem.members.names
    whole = tuple(j for j, name in enumerate(names) if trial.suggest_categorical(f"use {name}", [False, True]))
    pool = trial.suggest_categorical("pool", ["linear", "log", "logistic", AS_IS_POOL])
    shrinkage = trial.suggest_float("shrinkage", 1e-5, 0.1, log=True)
    tempered = trial.suggest_categorical("tempered", [False, True])
    floor = trial.suggest_float("floor", 1e-4, 3e-2, log=True)
    spec = BlendSpec("linear", shrinkage, tempered) if pool == "linear" else BlendSpec(pool, shrinkage, False, floor)
    spec = problem.of_kind(AS_IS if pool == AS_IS_POOL else spec)
    gate = trial.suggest_categorical("gate", [NONE, *names]) if coverage else NONE
    gated = names.index(gate) if gate != NONE else None
    return whole, spec, None if gated in whole else gated


def _evaluate(problem: Problem, whole: Subset, spec: BlendSpec, gated: int | None, available: float) -> Candidate | None:
    """The candidate of a trial, or None where it does not fit."""
    if not whole or problem.prices.seconds(whole) > available:
        return None
    if gated is not None:
        work = problem.prices.gated_work(whole, gated, available)
        if work > 0:
            candidate = judge_gated(problem, whole, spec, {gated: work})
            if candidate.seconds <= available:
                return candidate
    losses, _ = problem.evaluator.losses(whole, [spec])
    return Candidate(whole, spec, problem.prices.seconds(whole), losses)


def _recall(study: Any, objective: Any) -> None:
    """Evaluate the best finished trials again: a study keeps numbers, and a plan needs the fits."""
    import optuna

    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    fitting = [trial for trial in finished if all(value <= 0 for value in trial.constraints.values())]
    for trial in sorted(fitting, key=lambda t: t.value)[:_RECALLED]:
        objective(optuna.trial.FixedTrial(trial.params, number=trial.number))
