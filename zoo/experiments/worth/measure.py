"""Measure what sources are worth: prepare them, train with and without each, and compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.contracts import Entry, Request, Say
from zoo.data.usable import usable_battles
from zoo.entries.load import with_files_from
from zoo.entries.toml import document
from zoo.errors import ZooError
from zoo.experiments.recipes import Recipe, recipe_entries
from zoo.experiments.scored import Labels, Scored, scored_rows
from zoo.experiments.side_by_side import run_side_by_side
from zoo.experiments.trials import TRAINED, check_labels, planned, run_trial
from zoo.experiments.worth.compare import Models, Tables, compare, read_areas
from zoo.experiments.worth.recipe import Cells, Config, WorthRecipe, configs, expanded, load_worth, together
from zoo.experiments.worth.sources import Prepared, check_overlap, known_beforehand, prepared_sources, rows_learned, write_rows
from zoo.pipeline.lineage import gpu_seconds_of_making
from zoo.scores.worth import SourceFacts, WorthReport
from zoo.store import find, list_artifacts, write_atomic

TRAINING = ("train", "lexical-train")


@dataclass(frozen=True)
class Work:
    """All that is to be trained.

    The plain recipe in a folder of its own, its entries, and which run is which.
    """

    folder: Path
    recipe: Recipe
    entries: Sequence[Entry]
    cells: Cells
    configs: Sequence[Config]


def measure_worth(folder: Path, data_folder: Path, store: Path, *, results: Path, jobs: int = 1, say: Say) -> WorthReport:
    """Run a recipe of worth to its end; what is in the store is not trained again.

    `results`: the folder for the sources' parts, the plain recipe of all trainings, and their logs.
    """
    recipe = load_worth(folder)
    lexical = {entry.title: entry.load().kind == "lexical" for entry in recipe.entries}
    _check_files(recipe, data_folder)
    main = usable_battles(data_folder / recipe.data, say=say)
    folds = tuple(range(recipe.held.n_folds)) if any(lexical.values()) else recipe.folds  # a lexical entry trains them all
    known = known_beforehand(recipe, main, data_folder)
    for line in known:
        say(line)
    sources = prepared_sources(recipe, main, data_folder, folds, say)
    work = _work(recipe, [source for source in sources if not source.empty], results)
    labels = check_labels(work.recipe, data_folder, say)
    areas = read_areas(recipe, data_folder, labels)
    _forecast(work, data_folder, store, jobs, say)
    if jobs > 1:
        beside = Progress(len(work.recipe.runs), say)
        run_side_by_side(work.folder, data_folder, jobs, store, logs=results / "logs", say=beside.ended)
    tables = _tables(work, data_folder, store, labels, say=say)
    models = Models(recipe, work.cells, tables, lexical, areas)
    learned = {s.source.name: {f: int(n) for f, n in zip(folds, s.learned.sum(axis=0), strict=True)} for s in sources}
    facts = tuple(_facts(source, learned[source.source.name], store, data_folder) for source in sources)
    usable = {source.source.name: len(source.frame) for source in sources if not source.empty}
    held_out = [folds.index(fold) for fold in recipe.folds]
    contrasts, curve, drowned = compare(recipe, models, areas, usable, rows_learned(sources, held_out))
    return WorthReport(
        question=recipe.question,
        data=recipe.data,
        target=recipe.target,
        folds=recipe.folds,
        seeds=recipe.seeds,
        trainings=len(work.recipe.runs),
        without_chance=tuple(title for title, plain in lexical.items() if plain),
        sources=facts,
        known_beforehand=tuple(known),
        contrasts=tuple(contrasts),
        curve=tuple(curve),
        drowned=tuple(drowned),
    )


def _check_files(recipe: WorthRecipe, data_folder: Path) -> None:
    for key, names in (("data", [recipe.data]), ("also_on", recipe.also_on), ("sources", [s.file for s in recipe.sources])):
        for name in names:
            if not (data_folder / name).is_file():
                raise ZooError(f"{key}: {data_folder / name}: no such file; give the folder that holds it with --data-dir")


def _work(recipe: WorthRecipe, sources: Sequence[Prepared], results: Path) -> Work:
    """The plain recipe of all trainings, and the files that they learn from, written."""
    usable = {source.source.name: len(source.frame) for source in sources}
    every = together(recipe, usable)
    check_overlap([source for source in sources if source.source.name in every])
    wanted = configs(recipe, usable)
    files: dict[tuple[str, int | None, int], Path] = {}
    for source in sources:
        name = source.source.name
        parts: list[tuple[str, int | None, int]] = [(name, None, recipe.seeds[0])]
        parts += [(name, rows, seed) for rows in recipe.rows if rows < usable[name] for seed in recipe.seeds]
        for part in parts:
            _, rows, seed = part
            chosen = None if rows is None else source.part(rows, seed)
            if chosen is not None and not source.learned[chosen].any(axis=0).all():
                raise ZooError(f"rows: of {rows} rows of {name} by seed {seed} a fold may learn none; give larger counts")
            files[part] = results / "sources" / (f"{name}.csv.gz" if rows is None else f"{name}-{rows}-{seed}.csv.gz")
            write_rows(source, chosen, files[part].absolute())
    files = {part: path.absolute() for part, path in files.items()}
    votes = [source.source.name for source in sources if source.votes is not None]
    plain, cells = expanded(recipe, wanted, files, votes)
    folder = results / "trainings"
    folder.mkdir(parents=True, exist_ok=True)
    settings = plain.model_dump(mode="json", exclude_none=True, by_alias=True)
    write_atomic(folder / "recipe.toml", document(settings, head="made by `zoo data worth`: every training of its recipe"))
    return Work(folder, plain, recipe_entries(plain), cells, wanted)


def _forecast(work: Work, data_folder: Path, store: Path, jobs: int, say: Say) -> None:
    """Say how many trainings there are, how many are left, and how long they take by what is in the store."""
    left: list[Request] = []
    for run, entry in zip(work.recipe.runs, work.entries, strict=True):
        own = with_files_from(entry, data_folder)
        asked = (request for _, _, request in planned(work.recipe, run, own, data_folder, store))
        left += [request for request in asked if request.stage in TRAINING and find(store, request) is None]
    seconds = _known_seconds(left, store)
    total = len(work.recipe.runs)
    head = f"{total} trainings, {total - len(left)} of them in the store, {len(left)} to do"
    if not left:
        say(head)
    elif seconds is None:
        say(f"{head}; nobody has trained such an entry in this home yet: the time left is told once one has ended")
    else:
        say(f"{head}: about {minutes(seconds / jobs)} of training with --jobs {jobs}, by the entry's own in the store (median)")


def _known_seconds(requests: Sequence[Request], store: Path) -> float | None:
    """Seconds of trainings by the median of those of their entry in the store; None where one has none."""
    known: dict[str, list[float]] = {}
    for artifact in list_artifacts(store):
        if artifact.manifest.stage in TRAINING:
            measured = artifact.manifest.measurements
            known.setdefault(artifact.manifest.request.entry, []).append(measured.load_seconds + measured.run_seconds)
    if any(request.entry not in known for request in requests):
        return None
    return sum(sorted(known[request.entry])[len(known[request.entry]) // 2] for request in requests)


def minutes(seconds: float) -> str:
    """A time to come, for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tables(work: Work, data_folder: Path, store: Path, labels: Mapping[str, Labels], *, say: Say) -> Tables:
    """Each run's probabilities by file, running what is not in the store."""
    progress = Progress(len(work.recipe.runs), say)
    found: dict[str, dict[str, Scored]] = {}
    for run, entry in zip(work.recipe.runs, work.entries, strict=True):
        own = with_files_from(entry, data_folder)
        progress.next(run.title)
        done = run_trial(work.recipe, run, own, data_folder, store, say=progress.tell)
        found[run.title] = {data: scored_rows(artifact, labels[data]) for form, data, artifact in done if form == TRAINED}
    return found


class Progress:
    """Which training is running, and how long the others take by those that ran.

    Silent where all is in the store.
    """

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say, self._started = total, say, time.monotonic()
        self._place, self._ran, self._title, self._told = 0, 0, "", True

    def next(self, title: str) -> None:
        self._place, self._title, self._told = self._place + 1, title, False

    def tell(self, line: str) -> None:
        """Hear of a stage; of a run's first that is not in the store, people are told."""
        if self._told or ": running" not in line:
            return
        left = self._total - self._place + 1
        seconds = (time.monotonic() - self._started) / self._ran * left if self._ran else None
        self._say(f"{self._place} of {self._total}: {self._title}" + (f"; at most {minutes(seconds)} left" if seconds else ""))
        self._told, self._ran = True, self._ran + 1

    def ended(self, line: str) -> None:
        """Hear of a run that has ended beside others.

        Those in the store end soon, and make the rest look shorter.
        """
        self._place += 1
        left = (time.monotonic() - self._started) / self._place * (self._total - self._place)
        self._say(f"{self._place} of {self._total}: {line}" + (f"; about {minutes(left)} left" if left else ""))


def _facts(source: Prepared, learned: dict[int, int], store: Path, data_folder: Path) -> SourceFacts:
    return SourceFacts(
        name=source.source.name,
        file=source.source.file,
        weight=source.source.weight,
        soft=source.votes is not None,
        labelled=source.labelled,
        learned=learned,
        left_out=source.left_out,
        empty=source.empty,
        gpu_seconds=gpu_seconds_of_making(store, data_folder / source.source.file) or None,
    )
