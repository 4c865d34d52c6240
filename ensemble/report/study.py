"""A build's study for people: its trials, what mattered, and how to look at it in a browser."""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ensemble.plan import Plan
from ensemble.search.space import FLOOR, LEAST, POOL, SHRINKAGE
from ensemble.search.study_file import (
    DIGEST,
    ERROR,
    FEASIBLE,
    MEMBERS,
    PROPOSED_BY,
    SECONDS,
    SOME_ROWS,
)
from zoo.errors import ZooError, amount
from zoo.experiments.study import address, finished, importance, load_study
from zoo.report.duration import format_seconds
from zoo.report.text import Cell, Column, Page, Table, lowest

SHOWN = 12  # trials, the best first
SHORT = 12  # characters of a digest, for people
DRAWN = "Optuna"  # proposed what was not known beforehand
OUT, SOME, EVERY = "out", "some rows", "every row"


@dataclass(frozen=True)
class TrialLine:
    """One trial: its plan and how it went.

    `shrinkage` and `floor` are None where the pool has none.
    """

    number: int
    log_loss: float
    standard_error: float | None
    seconds: float
    feasible: bool
    proposed_by: str
    pool: str
    shrinkage: float | None
    floor: float | None
    members: tuple[str, ...]


@dataclass(frozen=True)
class StudyView:
    """A study as it lies in its file.

    `importance`: shares of the variance of log loss, the largest first.
    """

    name: str
    path: Path
    facts: dict[str, Any]
    trials: tuple[TrialLine, ...]
    importance: dict[str, float]

    @property
    def feasible(self) -> float:
        """Share of the trials whose plan fits the budget."""
        return sum(trial.feasible for trial in self.trials) / len(self.trials)

    @property
    def has_seconds(self) -> bool:
        """Whether plans differ in seconds: those of tables that nobody priced do not."""
        return len({trial.seconds for trial in self.trials}) > 1

    @property
    def command(self) -> str:
        """What opens it in a browser."""
        path = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        return f"optuna-dashboard {shlex.quote(address(path))}"


def study_of(plan: Plan, plan_path: Path, home: Path) -> tuple[str, Path]:
    """The name of a plan's study, and where it is kept.

    In the home, else beside the plan. ZooError where it had none.
    """
    if plan.study is None:
        raise ZooError(f"{plan_path}: built without a study; build again with --trials above 0")
    if plan.study.storage is None:
        raise ZooError(
            f"{plan_path}: the study {plan.study.name!r} was kept in memory alone; build again with `ensemble build`"
        )
    places = [home / plan.study.storage, plan_path.absolute().parent / plan.study.storage]
    return plan.study.name, next((place for place in places if place.is_file()), places[0])


def read_study(name: str, path: Path) -> StudyView:
    """The kept study of this name. ZooError where it is gone."""
    study = load_study(name, path, "build the plan again to have its study")
    lines = tuple(_line(trial) for trial in finished(study))
    if not lines:
        raise ZooError(f"{path}: no trial of the study {name!r} has ended; build the plan again to go on with it")
    return StudyView(name, path, dict(study.user_attrs), lines, importance_of(lines))


def _line(trial: Any) -> TrialLine:
    attributes, parameters = trial.user_attrs, trial.params
    return TrialLine(
        number=trial.number,
        log_loss=float(trial.value),
        standard_error=attributes.get(ERROR),
        seconds=float(attributes[SECONDS]),
        feasible=bool(attributes[FEASIBLE]),
        proposed_by=attributes.get(PROPOSED_BY, DRAWN),
        pool=parameters[POOL],
        shrinkage=parameters.get(SHRINKAGE),
        floor=parameters.get(FLOOR),
        members=tuple(attributes[MEMBERS]),
    )


def importance_of(lines: Sequence[TrialLine], *, seed: int = 0) -> dict[str, float]:
    """Shares of the variance of log loss that each choice explains.

    By functional ANOVA (`zoo.experiments.study.importance`). Not of a trial's own parameters, of which some exist in some
    trials only, but of the plan that came of them: who sees which rows, the pool, and its strength (the least where it has
    none).
    """
    choices: dict[str, list[Any]] = {POOL: [line.pool for line in lines]}
    for name in sorted({member.removesuffix(SOME_ROWS) for line in lines for member in line.members}):
        choices[name] = [_sees(line, name) for line in lines]
    strengths = {SHRINKAGE: [line.shrinkage for line in lines], FLOOR: [line.floor for line in lines]}
    choices |= {name: [value or LEAST[name] for value in values] for name, values in strengths.items()}
    return importance(choices, [line.log_loss for line in lines], seed=seed)


def _sees(line: TrialLine, member: str) -> str:
    if member in line.members:
        return EVERY
    return SOME if member + SOME_ROWS in line.members else OUT


def study_page(view: StudyView, plan: Plan) -> Page:
    """The study as text: its best trials, what mattered, and how to open it."""
    taken = "the plan is the study's" if plan.chosen == "study" else f"the plan is the exact search's ({plan.chosen})"
    known = sum(trial.proposed_by != DRAWN for trial in view.trials)
    facts = ", ".join(f"{key} {_text(key, value)}" for key, value in view.facts.items())
    page: list[str | Table] = [
        f"study {view.name}: {amount(len(view.trials), 'trial')}, {known} of them of plans known beforehand, "
        f"{view.feasible:.0%} fit the budget",
        facts,
        *("", f"{taken}: {plan.parsimony}", ""),
        trials_table(view.trials, has_seconds=view.has_seconds),
        *("", importance_table(view.importance)) * bool(view.importance),
        "",
        f"in a browser: {view.command}",
    ]
    if importlib.util.find_spec("optuna_dashboard") is None:
        page.append("optuna-dashboard is not installed: pip install 'preference-zoo[dashboard]'")
    return page


def _text(key: str, value: Any) -> str:
    if key == DIGEST:
        return str(value)[:SHORT]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def trials_table(trials: Sequence[TrialLine], *, has_seconds: bool = True) -> Table:
    """The best trials that fit, one line for each different plan and pool."""
    columns = [
        Column("trial"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "standard_error", ".4f", drop=2),
        *([Column("predicted", "seconds", format_seconds, drop=1)] if has_seconds else []),
        Column("pool"),
        Column("shrinkage", form=".1e", drop=3),
        Column("floor", form=".1e", drop=4),
        Column("proposed by", "proposed_by", drop=1),
        Column("members", prose=True),
    ]
    best = sorted((trial for trial in trials if trial.feasible), key=lambda trial: (trial.log_loss, trial.number))[:SHOWN]
    rows: list[list[Cell]] = [
        [
            *(t.number, t.log_loss, t.standard_error, *([t.seconds] if has_seconds else []), t.pool, t.shrinkage, t.floor),
            *(t.proposed_by.replace("_", " "), ", ".join(t.members)),
        ]
        for t in best
    ]
    return Table(columns, rows, lowest([trial.log_loss for trial in best]))


def importance_table(importance: dict[str, float]) -> Table:
    """What mattered, the most first."""
    columns = [Column("what mattered", "choice"), Column("share of the variance", "share", ".0%")]
    return Table(columns, [[name, share] for name, share in importance.items()])


def study_data(view: StudyView) -> dict[str, Any]:
    """The whole study as JSON."""
    data = {
        "name": view.name,
        "facts": view.facts,
        "trials": [asdict(trial) for trial in view.trials],
        "feasible": view.feasible,
        "importance": view.importance,
        "command": view.command,
    }
    return dict(json.loads(json.dumps(data)))
