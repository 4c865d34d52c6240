"""Experiment recipes: which entries run on which battles with which settings.

They lie in `experiments/NNN-slug/recipe.toml`.
"""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts import Contract, Entry, Held, Name, Positive, Request, Say, Selection
from zoo.entries.load import load_entry, override, with_files_from
from zoo.errors import ZooError
from zoo.experiments.jobs.run import asked_of, run_ahead
from zoo.experiments.run import run_folds
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.folds import fold_chains
from zoo.reading import read_bytes
from zoo.settings import MOST_TOML_BYTES, read_toml
from zoo.store import Artifact


class RecipeRun(Contract):
    """One entry with settings changed, as `zoo run ENTRY --set KEY=VALUE` takes them."""

    entry: Name = Field(description="one of `zoo list`")
    name: str = Field("", description="what tables call it; default: the entry")
    settings: tuple[str, ...] = Field((), alias="set", description='as --set takes them: "train.epochs=2"')
    fold: Annotated[int, Field(ge=0)] | None = Field(None, description="until = 'train': the fold held out; None: the recipe's")
    average: bool = Field(False, description="until = 'train': train every fold, and evaluate the mean of their adapters too")

    @property
    def title(self) -> str:
        return self.name or self.entry


class Recipe(Contract):
    """What an experiment asks, and the runs that answer it.

    `data` is a file name in the folder that the caller names, and so are relative paths in a run's settings (train.extra).
    """

    question: str = Field(description="what the experiment asks")
    data: str = Field(description="file of battles in the folder that --data-dir names")
    target: str = Field("cpu", description="machine that serves, one of `zoo target list`")
    held: Held = Held()
    all_folds: bool = Field(False, description="every fold of held.n_folds, so that the whole file is scored out of fold")
    score_rows: Positive | None = Field(None, description="held-out rows that are scored at most; None: all")
    until: Literal["train", "score"] = Field(
        "score",
        description="train: compare trained models in transformers, without merging, AWQ and vLLM (zoo/experiments/trials.py)",
    )
    also_on: tuple[str, ...] = Field((), description="until = 'train': files that every trained model is evaluated on as well")
    runs: tuple[RecipeRun, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        titles = [run.title for run in self.runs]
        if self.until == "train" and len(set(titles)) < len(titles):
            raise ValueError("runs: until = 'train' compares runs by name; give each its own `name`")
        if self.until == "score" and (self.also_on or any(run.average or run.fold is not None for run in self.runs)):
            raise ValueError("also_on, fold and average are for until = 'train'")
        if over := [run.title for run in self.runs if (run.fold or 0) >= self.held.n_folds]:
            raise ValueError(f"runs: {', '.join(over)}: folds are numbered 0 to {self.held.n_folds - 1}")
        if self.until == "train" and self.all_folds:
            raise ValueError(
                "all_folds is for until = 'score'; with until = 'train' give a run `average = true` for every fold"
            )
        return self


def load_recipe(folder: Path) -> Recipe:
    """The recipe of an experiment's folder; errors name the key."""
    path = folder / "recipe.toml"
    if not path.exists():
        raise ZooError(f"{path}: no such file; an experiment is a folder with a recipe.toml")
    try:
        return read_toml(path, Recipe)
    except ZooError:
        if _asks_worth(path):
            raise ZooError(f"{path}: asks what its sources are worth; run `zoo data worth {folder}`") from None
        raise


def _asks_worth(path: Path) -> bool:
    """Whether it is TOML of a recipe of worth, well written or not."""
    with suppress(ZooError, OSError, ValueError, RecursionError):
        keys = tomllib.loads(read_bytes(path, MOST_TOML_BYTES, mend="give a TOML file").decode("utf-8-sig"))
        return "sources" in keys and "runs" not in keys
    return False


def recipe_entries(recipe: Recipe) -> list[Entry]:
    """The entries of a recipe's runs, settings applied."""
    return [override(load_entry(run.entry), list(run.settings)) for run in recipe.runs]


def run_recipe(folder: Path, data_folder: Path, store: Path, *, say: Say) -> list[Artifact]:
    """Run every entry of a recipe to its scores; what is in the store is not made again."""
    recipe = load_recipe(folder)
    battles = battles_input(data_folder / recipe.data, say=say)
    selection = Selection(max_rows=recipe.score_rows)
    planned: list[tuple[str, Entry, list[list[Request]]]] = []
    for run, entry in zip(recipe.runs, (with_files_from(entry, data_folder) for entry in recipe_entries(recipe)), strict=True):
        if recipe.all_folds:
            chains = fold_chains(entry, battles, recipe.target, store, held=recipe.held, selection=selection)
        else:
            chains = [chain(entry, battles, recipe.target, store, held=recipe.held, selection=selection)]
        planned.append((run.title, entry, chains))
    run_ahead((asked for one in planned for asked in asked_of(*one)), store, say=say)
    return [made for _, entry, chains in planned for made in run_folds(chains, entry, store, say=say)]
