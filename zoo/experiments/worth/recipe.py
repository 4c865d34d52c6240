"""Recipes of worth: which sources are trained with and without.

The plain recipe of all those trainings follows from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from zoo.contracts import Contract, Entry, Held, Name, Positive
from zoo.contracts.training import Targets
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.experiments.recipes import Recipe, RecipeRun
from zoo.settings import read_toml

LEAST_SEEDS = 3
Config = tuple[tuple[str, int | None], ...]  # sources beside the main file, each with its rows; None: all
MAIN: Config = ()


class WorthEntry(Contract):
    """An entry that is trained with and without each source, with settings changed."""

    entry: Name
    name: str = Field("", description="what tables call it; default: the entry")
    settings: tuple[str, ...] = Field((), alias="set")

    @property
    def title(self) -> str:
        return self.name or self.entry

    def load(self) -> Entry:
        """The entry, settings applied; ZooError where it has extra battles of its own."""
        entry = override(load_entry(self.entry), list(self.settings))
        extra = entry.lexical.extra if entry.lexical else entry.train.extra if entry.train else ()
        if extra:
            raise ZooError(
                f"{self.title}: learns from extra files already; make them `sources`, or put them into the main file"
            )
        return entry


class WorthSource(Contract):
    """A file of battles whose worth is asked."""

    name: Name
    file: str
    weight: Annotated[float, Field(gt=0)] = Field(1.0, description="of a battle's loss against one of the main file")
    targets: Targets = Field("votes", description="votes: shares of votes_a, votes_b, votes_tie where a row has them")
    together: bool = Field(
        True, description="part of the trainings on all sources at once; false for another form of such rows"
    )


class WorthRecipe(Contract):
    """What a recipe of worth asks.

    `data`, `also_on` and the sources' files are names in the folder that the caller names. Every training holds out a fold of
    `data`; each of `folds` is held out in turn.
    """

    question: str
    data: str
    target: str = "cpu"
    held: Held = Held(rule="near-prompts-1")
    folds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    seeds: tuple[int, ...]
    also_on: tuple[str, ...] = Field((), description="battles of other sources, to evaluate on")
    rows: tuple[Positive, ...] = Field((), description="of the curve: so many rows of each source")
    entries: tuple[WorthEntry, ...] = Field(min_length=1)
    sources: tuple[WorthSource, ...] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _enough(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < LEAST_SEEDS:
            raise ValueError(f"give at least {LEAST_SEEDS} different seeds; with fewer, seed noise is not told from a gain")
        return tuple(dict.fromkeys(seeds))

    @model_validator(mode="after")
    def _check(self) -> WorthRecipe:
        for key, names in (
            ("entries", [entry.title for entry in self.entries]),
            ("sources", [source.name for source in self.sources]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: names must differ: {', '.join(names)}")
        if over := [fold for fold in self.folds if fold >= self.held.n_folds]:
            raise ValueError(f"folds: {over[0]} is not one of {self.held.n_folds}, which are numbered from 0")
        if len({self.data, *self.also_on}) <= len(self.also_on):
            raise ValueError(f"also_on: name each file once, and not {self.data}, of which trainings learn")
        if len(set(self.folds)) < len(self.folds):
            raise ValueError("folds: name each once")
        if list(self.rows) != sorted(set(self.rows)):
            raise ValueError("rows: give rising numbers, each once")
        return self


def load_worth(folder: Path) -> WorthRecipe:
    """The recipe of worth in an experiment's folder; errors name the key."""
    path = folder / "recipe.toml"
    if not path.exists():
        raise ZooError(f"{path}: no such file; an experiment is a folder with a recipe.toml")
    return read_toml(path, WorthRecipe)


def together(recipe: WorthRecipe, usable: Mapping[str, int]) -> list[str]:
    """The sources that are trained on all at once; none where there is only one."""
    names = [source.name for source in recipe.sources if source.together and source.name in usable]
    return names if len(names) > 1 else []


def whole(names: Sequence[str]) -> Config:
    return tuple((name, None) for name in names)


def configs(recipe: WorthRecipe, usable: Mapping[str, int]) -> list[Config]:
    """What is trained on beside the main file, each once.

    Nothing; each source alone; all at once; all but one; and the counts of the curve that a source has more rows than.
    `usable`: rows of each source that has any.
    """
    names = [source.name for source in recipe.sources if source.name in usable]
    every = together(recipe, usable)
    found = [MAIN, *(whole([name]) for name in names)]
    if every:
        found += [whole(every), *(whole([other for other in every if other != name]) for name in every)]
    found += [((name, rows),) for name in names for rows in recipe.rows if rows < usable[name]]
    return list(dict.fromkeys(found))


def is_part(config: Config) -> bool:
    """Whether it takes some rows of a source alone, which a seed draws."""
    return any(rows is not None for _, rows in config)


def told(config: Config) -> str:
    """A configuration as titles of runs have it."""
    return " + ".join(["main", *(name if rows is None else f"{rows} {name}" for name, rows in config)])


class Cells:
    """Which run trains what: titles by entry, configuration, fold and seed.

    A training without chance (a lexical entry) has one run for all seeds, and one for all folds.
    """

    def __init__(self) -> None:
        self.runs: dict[str, RecipeRun] = {}
        self._titles: dict[tuple[str, Config, int, int], str] = {}

    def add(self, key: tuple[str, Config, int, int], run: RecipeRun) -> None:
        self.runs[run.title] = run
        self._titles[key] = run.title

    def titles(self, entry: str, config: Config, folds: Sequence[int], seed: int) -> list[str]:
        """The runs of one seed, one a fold, or one for all."""
        return list(dict.fromkeys(self._titles[entry, config, fold, seed] for fold in folds))


def expanded(
    recipe: WorthRecipe, wanted: Sequence[Config], files: Mapping[tuple[str, int | None, int], Path], votes: Sequence[str]
) -> tuple[Recipe, Cells]:
    """The plain recipe of all trainings, and which of its runs is which.

    `files`: of each source by its rows and seed, with all rows under the first seed; `votes`: sources with soft labels.
    """
    weights = {source.name: source.weight for source in recipe.sources}
    cells = Cells()
    for one in recipe.entries:
        lexical = one.load().kind == "lexical"
        for config in wanted:
            for seed in recipe.seeds:
                drawn = seed if is_part(config) else recipe.seeds[0]
                paths = [(name, files[name, rows, drawn if rows else recipe.seeds[0]]) for name, rows in config]
                extra = [f"{{ file = {json.dumps(str(path))}, weight = {weights[name]} }}" for name, path in paths]
                section = "lexical" if lexical else "train"
                settings = [*one.settings, *([f"{section}.extra=[{', '.join(extra)}]"] if extra else [])]
                settings += [f"{section}.extra_targets=votes"] if any(name in votes for name, _ in config) else []
                settings += [] if lexical else [f"train.seed={seed}"]
                for fold in recipe.folds:
                    title = f"{one.title}: {told(config)}"
                    title += "" if lexical and not is_part(config) else f", seed {seed}"
                    title += "" if lexical else f", fold {fold}"
                    run = RecipeRun.model_validate(
                        {"entry": one.entry, "name": title, "set": settings, "fold": None if lexical else fold}
                    )
                    cells.add((one.title, config, fold, seed), run)
    plain = Recipe(
        question=recipe.question,
        data=recipe.data,
        target=recipe.target,
        held=recipe.held,
        until="train",
        also_on=recipe.also_on,
        runs=tuple(cells.runs.values()),
    )
    return plain, cells
