"""Entries of the zoo: what fits a machine, what it takes there, and stages run to a score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from preference_zoo.handed import Handed, Table, check_least
from preference_zoo.shown import INTERRUPTED, Shown, bars, local, local_page, say
from zoo.errors import amount
from zoo.report.html import fragment, image
from zoo.report.text import as_text

if TYPE_CHECKING:
    from zoo.experiments.run import Finished
    from zoo.scores.ladder import Step


class Ladder(Shown):
    """Log loss of each form of a model, from base to engine, on the same rows; a DataFrame."""


@dataclass(frozen=True)
class Run:
    """What a run of an entry left.

    `paths`: folders of the artifacts that it ended with. `metrics`: those of the last of them, by name. `folds`: log loss by
    fold where all were run, else empty. `ladders`: what the entry's gate asked for.
    """

    entry: str
    paths: tuple[Path, ...]
    metrics: dict[str, float]
    folds: pd.DataFrame
    ladders: tuple[Ladder, ...]
    _page: tuple[Any, ...]

    @property
    def log_loss(self) -> float | None:
        """Of the held-out rows; of the first variant, where an entry is scored in several."""
        from zoo.scores.metric_names import LOG_LOSS

        if len(self.folds):
            return float(self.folds["log_loss"].iloc[-1])
        return next((value for name, value in self.metrics.items() if name.rpartition(":")[2] == LOG_LOSS), None)

    @property
    def _line(self) -> str:
        return f"{self.entry}: " + ("not scored" if self.log_loss is None else f"log loss {self.log_loss:.4f}")

    def __repr__(self) -> str:
        return f"Run({self._line}; {', '.join(local(str(path)) for path in self.paths)})"

    def __str__(self) -> str:
        return as_text(self._page)

    def _repr_html_(self) -> str:
        return fragment([self._line, *self._page]) + "".join(found._repr_html_() or "" for found in self.ladders)


def run(
    entry: str,
    battles: Table,
    *,
    until: str = "run",
    target: str = "cpu",
    fold: int | None = None,
    folds: int | None = None,
    fold_rule: str | None = None,
    average: bool = False,
    score_rows: int | None = None,
    settings: Mapping[str, object] | None = None,
    source: str | None = None,
    emulated: str | None = None,
    max_bad_rows: float = 0.1,
) -> Run:
    """Run an entry's stages on battles: fetch, train, merge, quantize, score, gate.

    As `zoo run` does. What is in the store is taken from there. Each stage shows how far it is, and can be interrupted: the
    same call goes on from where it stopped. `until`: the stage to end with (`train`, `merge`, `quantize`, `score`; `run` is
    all). `settings`: of the entry, as `{"train.epochs": 2}`. The others are the options of `zoo run`. ZooError with the stage's
    own message where one fails, and where a ladder does not hold its gate.

    >>> pz.run("lexical", votes)
    >>> pz.run("smollm2-135m", votes, settings={"train.epochs": 2}, folds=5)
    """
    from zoo.entries.load import load_entry, override
    from zoo.experiments.run import RunOptions, run_entry, run_gated
    from zoo.scores.ladder import check_gate
    from zoo.settings import store_folder

    check_least(1, score_rows=score_rows)
    chosen = override(load_entry(entry), _settings(settings))
    with Handed() as handed, _shown_stages():
        path = handed.path(battles, "battles", keep=True)
        options = RunOptions(
            last="score" if until == "run" else until,
            battles=path,
            target=target,
            held=_held(fold, folds, fold_rule, path, handed),
            every_fold=fold is None and folds is not None,
            average=average,
            score_rows=score_rows,
            source=source,
            emulated=emulated,
            most_bad=max_bad_rows,
        )
        made = (run_gated if until == "run" else run_entry)(chosen, options, store_folder(), say=handed.say)
        for steps, _ in made.ladders:
            check_gate(chosen, steps)
    return _run_of(entry, made)


def ladder(
    entry: str,
    battles: Table,
    *,
    target: str = "cpu",
    fold: int | None = None,
    folds: int | None = None,
    fold_rule: str | None = None,
    score_rows: int | None = None,
    settings: Mapping[str, object] | None = None,
    source: str | None = None,
    max_bad_rows: float = 0.1,
) -> Ladder:
    """What each step from the trained model to the served one costs in log loss.

    As `zoo ladder` does: base, adapter, merged, quantized and in the engine, on the same held-out rows; stages that are missing
    are run first. ZooError where a step costs more than the entry's `ladder.max_ladder_loss`.

    >>> pz.ladder("smollm2-135m", votes, score_rows=200)
    """
    from zoo.entries.load import load_entry, override
    from zoo.experiments.run import RunOptions, run_ladder
    from zoo.scores.ladder import check_gate
    from zoo.settings import store_folder

    check_least(1, score_rows=score_rows)
    chosen = override(load_entry(entry), _settings(settings))
    with Handed() as handed, _shown_stages():
        path = handed.path(battles, "battles", keep=True)
        options = RunOptions(
            last="score",
            battles=path,
            target=target,
            held=_held(fold, folds, fold_rule, path, handed),
            score_rows=score_rows,
            diagnostic=True,
            source=source,
            most_bad=max_bad_rows,
        )
        steps, figure = run_ladder(chosen, options, store_folder(), say=handed.say)
        check_gate(chosen, steps)
    return _ladder_of(entry, steps, figure)


def check(entry: str, *, target: str = "t4x2", train: bool = False, engine: str | None = None) -> Shown:
    """Whether an entry can serve on a target, what does not hold, and the mend.

    As `zoo check` says it: columns `check`, `verdict`, `what`, `mend`. `train`: training on one of its cards, too. `engine`:
    the version of vLLM there.

    >>> found = pz.check("llama-3-8b", target="t4x2")
    >>> found[found.verdict == "fail"]
    """
    from zoo.checks import check_entry
    from zoo.entries.load import load_entry
    from zoo.pipeline.weights import fetched_folder
    from zoo.report.views import findings_table
    from zoo.settings import store_folder
    from zoo.targets import load_target

    chosen = load_entry(entry)
    folder = fetched_folder(chosen, store_folder())
    findings = check_entry(chosen, load_target(target), model_folder=folder, train=train, engine=engine)
    frame = Shown([finding.model_dump() for finding in findings])
    failed = sum(finding.verdict == "fail" for finding in findings)
    frame.shown_as(
        f"{entry} on {target}: {failed or 'nothing'} of {amount(len(findings), 'check')} failed", [findings_table(findings)]
    )
    return frame


def cost(
    entry: str, *, target: str = "t4x2", rows: int | None = None, lengths: Table | None = None, measure: bool = False
) -> Shown:
    """How long an entry takes on a target: low, likely and high seconds of each variant.

    As `zoo cost` forecasts it: about 80 in 100 true times lie between low and high. `rows`: of the file to predict; `lengths`:
    battles as long as its own (without, as the competition's); `measure`: first score a sample of them here.

    >>> pz.cost("llama-3-8b", target="t4x2", rows=25_000)
    """
    from zoo.cost.asked import forecast_file
    from zoo.entries.load import load_entry
    from zoo.report.cost import forecasts_page
    from zoo.report.text import Table as PageTable
    from zoo.targets import load_target

    check_least(1, rows=rows)
    with Handed() as handed, _shown_stages():
        path = handed.optional(lengths, "lengths")
        found = forecast_file(load_entry(entry), load_target(target), rows=rows, lengths=path, measured=measure, say=handed.say)
    page = forecasts_page(found)
    table = next(block for block in page if isinstance(block, PageTable))
    frame = Shown(table.records())
    frame.shown_as(str(page[0]), page)
    return frame


def _settings(given: Mapping[str, object] | None) -> list[str]:
    """Settings as `--set` takes them: texts as they stand, other values as TOML has them."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in (given or {}).items()]


def _held(fold: int | None, folds: int | None, rule: str | None, path: Path, handed: Handed) -> Any:
    from zoo.errors import ZooError
    from zoo.experiments.held import N_FOLDS, Rule, held_of

    check_least(0, fold=fold)
    check_least(2, folds=folds)

    if rule is not None and rule not in list(Rule):
        raise ZooError(f"fold_rule={rule!r}: give {' or '.join(Rule)}")
    return held_of(fold, folds or N_FOLDS, None if rule is None else Rule(rule), path, say=handed.say)


@contextmanager
def _shown_stages() -> Iterator[None]:
    """Stages show how far they are; an interrupted one says how to go on."""
    from zoo.pipeline.runner import watched

    try:
        with watched(bars):
            yield
    except KeyboardInterrupt:
        say(INTERRUPTED)
        raise


def _run_of(entry: str, made: Finished) -> Run:
    from zoo.report.folds import folds_table
    from zoo.report.views import run_page

    last = made.artifacts[-1].manifest
    page = tuple(local_page(run_page(made.artifacts, made.folds, made.averaged)))
    return Run(
        entry,
        tuple(artifact.path for artifact in (*made.artifacts, *made.averaged)),
        dict(last.metrics),
        pd.DataFrame(folds_table(made.folds).records()),
        tuple(_ladder_of(entry, steps, figure) for steps, figure in made.ladders),
        page,
    )


def _ladder_of(entry: str, steps: Sequence[Step], figure: Path) -> Ladder:
    from zoo.report.ladder import ladder_page, ladder_records

    frame = Ladder(ladder_records(steps))
    picture = image(figure.read_bytes(), f"the ladder of {entry}: log loss of each form") if figure.exists() else ""
    frame.shown_as(
        f"{entry}: {steps[0].loss:.4f} to {steps[-1].loss:.4f} in {amount(len(steps), 'form')}",
        ladder_page(steps, figure),
        picture,
    )
    return frame
