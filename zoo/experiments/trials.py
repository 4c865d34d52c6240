"""Trials: an experiment's trained models compared before anything is merged.

They are compared on held-out battles and on other files. What a setting of training is worth shows in the adapter itself;
merging, AWQ and an engine would cost each trial minutes and add their own noise. The tables are paired: every run is compared
with the first trained run of its entry, on the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.contracts import Entry, EvaluateRequest, Held, Input, Request, Say, Selection, TrainRequest, changed
from zoo.data.splits import prompt_groups
from zoo.data.usable import usable_battles
from zoo.entries.load import with_files_from
from zoo.errors import ZooError
from zoo.experiments.jobs.run import run_ahead
from zoo.experiments.jobs.tasks import Asked
from zoo.experiments.recipes import Recipe, RecipeRun, load_recipe, recipe_entries
from zoo.experiments.run import run_chain
from zoo.experiments.scored import Labels, Scored, scored_rows
from zoo.pipeline.chain import battles_input, chain, output_of
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.report.drawing import BLUE, GREY, INK, entitle, styled
from zoo.report.text import Cell, Column, Table, lowest
from zoo.scores.metrics import log_loss_rows, mean_and_error, recalibrated_log_loss, uniform_loss
from zoo.store import Artifact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ZERO_SHOT, TRAINED, AVERAGED = "zero-shot", "trained", "mean of folds"


@dataclass(frozen=True)
class Trial:
    """One model on one file.

    `losses` by row id, and `prompts` as numbers: rows of one depend on each other, so errors are of prompts. `ties`: whether
    the file's battles can be ties; `change` against the first trained model of its entry, paired.
    """

    name: str
    entry: str
    form: str
    data: str
    losses: dict[str, float]
    prompts: Mapping[str, int]
    recalibrated: float
    ties: bool = True
    change: tuple[float, float] | None = None

    @property
    def log_loss(self) -> tuple[float, float]:
        return mean_and_error(np.array(list(self.losses.values())), self.prompts_of(self.losses))

    def prompts_of(self, ids: Iterable[str]) -> np.ndarray:
        """The prompts (ids,) of some rows."""
        return np.array([self.prompts[row_id] for row_id in ids], dtype=np.int64)


def planned(recipe: Recipe, run: RecipeRun, entry: Entry, data_folder: Path, store: Path) -> Iterator[tuple[str, str, Request]]:
    """What a run takes, in order: (form, file, request).

    Files and form are empty for stages that only lead to others.
    """
    main = _battles(data_folder / recipe.data)
    others = [(name, _battles(data_folder / name)) for name in recipe.also_on]
    if entry.kind == "lexical":
        yield from _planned_lexical(recipe, run, entry, main, others, store)
        return
    held_rows = Selection(max_rows=recipe.score_rows)
    helds = [changed(recipe.held, fold=fold) for fold in range(recipe.held.n_folds)]
    own = held_of_run(recipe, run)
    helds = helds if run.average else [own]
    chains = [chain(entry, main, recipe.target, store, held=held, selection=held_rows) for held in helds]
    fetch = chains[0][0]
    yield "", "", fetch
    files = [(recipe.data, main, own, held_rows), *((n, b, recipe.held, Selection(rows="all")) for n, b in others)]
    for name, battles, held, selection in files:
        yield ZERO_SHOT, name, _evaluation(entry, output_of(fetch, store), None, battles, held, selection)
    for requests in chains:
        trains = [request for request in requests if isinstance(request, TrainRequest)]
        yield from (("", "", request) for request in trains)
        train = trains[-1]
        for name, battles, _, selection in files:
            base = output_of(fetch, store)
            yield _form(train, run), name, _evaluation(entry, base, output_of(train, store), battles, train.held, selection)
    if run.average:
        merge = average_chain(chains, store)[0]
        yield "", "", merge
        for name, battles in others:  # the main file was learned from
            yield AVERAGED, name, _evaluation(entry, output_of(merge, store), None, battles, recipe.held, Selection(rows="all"))


def _battles(path: Path) -> Input:
    """A battles file as an input, read once for all runs that take it."""
    status = path.stat() if path.exists() else None  # what is not there is told by who reads it
    return _battles_of(path, (status.st_mtime_ns, status.st_size) if status else None)


@lru_cache(maxsize=64)
def _battles_of(path: Path, _version: tuple[int, int] | None) -> Input:
    return battles_input(path)


def _planned_lexical(
    recipe: Recipe, run: RecipeRun, entry: Entry, main: Input, others: Sequence[tuple[str, Input]], store: Path
) -> Iterator[tuple[str, str, Request]]:
    """A lexical entry trains every fold at once; its tables are diagnostics, and no members."""
    if run.average:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no adapters to average; take `average` out of the run")
    (requests,) = fold_chains(entry, main, recipe.target, store, held=recipe.held, selection=Selection(diagnostic=True))
    train, score = requests
    yield "", "", train
    yield TRAINED, recipe.data, score
    for name, battles in others:
        everything = Selection(rows="all", diagnostic=True)
        yield TRAINED, name, changed(score, battles=battles, selection=everything, unusable=battles.unusable)


def held_of_run(recipe: Recipe, run: RecipeRun) -> Held:
    """What a run holds out: the recipe's fold, or its own."""
    return recipe.held if run.fold is None else changed(recipe.held, fold=run.fold)


def _form(train: TrainRequest, run: RecipeRun) -> str:
    return f"{TRAINED}, fold {train.held.fold}" if run.average else TRAINED


def _evaluation(
    entry: Entry, base: Input, trained: Input | None, battles: Input, held: Held, selection: Selection
) -> EvaluateRequest:
    if not (entry.prompt and entry.train):
        raise ZooError(f"{entry.name}: {entry.a_kind} needs [prompt] and [train]")
    return EvaluateRequest(
        entry=entry.name,
        base=base,
        trained=trained,
        method=entry.train.method if trained else "lora",
        scale=entry.merge.scale if trained else 1.0,
        battles=battles,
        held=held,
        selection=selection,
        prompt=entry.prompt,
    )


def run_trials(folder: Path, data_folder: Path, store: Path, *, only: Sequence[str] = (), say: Say) -> list[Trial]:
    """Run a recipe's trials, or those named in `only`; what is in the store is not made again."""
    recipe = load_recipe(folder)
    check_names(folder, recipe, only)
    labels = check_labels(recipe, data_folder, say)
    trials: list[Trial] = []
    seen: set[str] = set()
    runs = [
        (run, with_files_from(entry, data_folder))
        for run, entry in zip(recipe.runs, recipe_entries(recipe), strict=True)
        if not only or run.title in only
    ]
    asked = (
        Asked(run.title, _fold_of(request), entry, request)
        for run, entry in runs
        for _, _, request in planned(recipe, run, entry, data_folder, store)
    )
    run_ahead(asked, store, say=say)
    for run, entry in runs:
        for form, data, artifact in run_trial(recipe, run, entry, data_folder, store, say=say):
            if form == ZERO_SHOT and artifact.fingerprint in seen:
                continue  # once, however many runs train the entry
            seen.add(artifact.fingerprint)
            scored = scored_rows(artifact, labels[data])
            if entry.kind == "lexical" and data == recipe.data:  # its table has every fold
                scored = scored.of(scored.folds == held_of_run(recipe, run).fold)
            trials.append(_trial(scored, labels[data].prompts, run, entry, form, data))
    return compared(trials)


def _fold_of(request: Request) -> int | None:
    """The fold that a request is of; None of what has no part in it, as the model before training."""
    trained = isinstance(request, TrainRequest) or (isinstance(request, EvaluateRequest) and request.trained is not None)
    return request.held.fold if trained and isinstance(request, TrainRequest | EvaluateRequest) else None


def run_trial(
    recipe: Recipe, run: RecipeRun, entry: Entry, data_folder: Path, store: Path, *, say: Say
) -> Iterator[tuple[str, str, Artifact]]:
    """Run one run's stages; of each that evaluates, as (form, file, artifact)."""
    for form, data, request in planned(recipe, run, entry, data_folder, store):
        artifact = run_chain([request], entry, store, say=say)[-1]
        if form:
            yield form, data, artifact


def check_names(folder: Path, recipe: Recipe, only: Sequence[str]) -> None:
    """ZooError where a run is asked for that the recipe does not have."""
    titles = [run.title for run in recipe.runs]
    if unknown := sorted(set(only) - set(titles)):
        raise ZooError(f"{folder}: no run {', '.join(unknown)}; it has {', '.join(titles)}")


def check_labels(recipe: Recipe, data_folder: Path, say: Say = lambda _: None) -> dict[str, Labels]:
    """Labels of each file that a recipe's models are evaluated on.

    ZooError for a file without any label.
    """
    labels = {}
    for key, name in (("data", recipe.data), *(("also_on", name) for name in recipe.also_on)):
        labels[name] = _labels(data_folder / name, say)
        if not labels[name].by_id:
            raise ZooError(f"{key}: {data_folder / name}: no row is labelled; models are compared by log loss on labelled rows")
    return labels


def _labels(path: Path, say: Say) -> Labels:
    battles = usable_battles(path, say=say)
    rows = zip(battles.frame["id"], battles.frame["label"], strict=True)
    prompts = dict(zip(battles.frame["id"], prompt_groups(battles.frame).tolist(), strict=True))
    return Labels({row_id: int(label) for row_id, label in rows if label >= 0}, prompts, battles.can_tie)


def _trial(scored: Scored, prompts: Mapping[str, int], run: RecipeRun, entry: Entry, form: str, data: str) -> Trial:
    losses = log_loss_rows(scored.p, scored.y)
    name = entry.name if form == ZERO_SHOT else run.title
    by_id = dict(zip(scored.ids, losses.tolist(), strict=True))
    sides = scored.p if scored.ties else scored.p[:, :2]
    of_rows = {row_id: prompts[row_id] for row_id in scored.ids}
    return Trial(name, entry.name, form, data, by_id, of_rows, recalibrated_log_loss(sides, scored.y), scored.ties)


def compared(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, each with its paired difference from the first trained model of its entry.

    The mean over the rows of that file that both have, and its standard error by prompts; None for the first itself and where
    they share no row.
    """
    first: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        if trial.form != ZERO_SHOT:
            first.setdefault((trial.entry, trial.data), trial)
    found = []
    for trial in trials:
        control = first.get((trial.entry, trial.data))
        shared = [row_id for row_id in trial.losses if control and row_id in control.losses]
        if control is None or control is trial or not shared:
            found.append(trial)
            continue
        change = np.array([trial.losses[row_id] - control.losses[row_id] for row_id in shared])
        found.append(replace(trial, change=mean_and_error(change, trial.prompts_of(shared))))
    return found


def trials_table(trials: Sequence[Trial]) -> Table:
    """A line a trial, file by file; the lowest log loss of each file is marked."""
    shown = [trial for data in dict.fromkeys(trial.data for trial in trials) for trial in trials if trial.data == data]
    rows: list[list[Cell]] = []
    best: frozenset[int] = frozenset()
    for trial in shown:
        change = trial.change or (None, None)
        rows.append([trial.name, trial.form, trial.data, *trial.log_loss, trial.recalibrated, *change, len(trial.losses)])
    for data in {trial.data for trial in shown}:
        best |= lowest([trial.log_loss[0] if trial.data == data else None for trial in shown])
    columns = [
        Column("run"),
        Column("form", drop=4),
        Column("battles", drop=3),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("recalibrated", form=".4f", drop=5),
        Column("against the entry's first run", "change", "+.4f", drop=1),
        Column("se of that", "change_se", ".4f", drop=2),
        Column("rows", form=",", drop=6),
    ]
    return Table(columns, rows, best)


@styled
def trials_figure(trials: Sequence[Trial]) -> Figure:
    """Log loss of each trained trial with its standard error, a panel a file.

    What guessing has is a dashed line.
    """
    from matplotlib.figure import Figure

    files = list(dict.fromkeys(trial.data for trial in trials))
    most = max(sum(t.data == data and t.form != ZERO_SHOT for t in trials) for data in files)
    figure = Figure(figsize=(6 * len(files), 1.4 + 0.3 * most), layout="constrained")
    for axes, data in zip(np.atleast_1d(figure.subplots(1, len(files))), files, strict=True):
        shown = [t for t in trials if t.data == data and t.form != ZERO_SHOT][::-1]
        losses, errors = (np.array(values) for values in zip(*(t.log_loss for t in shown), strict=True))
        marks = {"fmt": "o", "color": INK, "capsize": 3, "linewidth": 1, "label": "log loss ± standard error"}
        axes.errorbar(losses, np.arange(len(shown)), xerr=errors, **marks)
        axes.plot([t.recalibrated for t in shown], np.arange(len(shown)), "x", color=BLUE, label="recalibrated")
        guessing = uniform_loss(ties=shown[0].ties)
        axes.axvline(guessing, color=GREY, linestyle="--", linewidth=1, label="guessing")
        names = [t.name if t.form == TRAINED else f"{t.name} ({t.form})" for t in shown]
        axes.set(yticks=np.arange(len(shown)), yticklabels=names, xlabel="log loss, nats", title=data)
        axes.set_ylim(-0.5, len(shown) - 0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    entitle(figure, "Trained models, each on the rows that it had not seen", "")
    return figure
