"""Files that an experiment is evaluated on, and what it learns from that asks their prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zoo.contracts import Entry
from zoo.data.battles import read_battles
from zoo.data.masks import asked_in, why_masked
from zoo.entries.load import with_files_from
from zoo.experiments.recipes import Recipe, recipe_entries


def overlaps(recipe: Recipe, data_folder: Path) -> Iterator[str]:
    """Rows that some run learns from and that ask what a file of `also_on` asks, or nearly.

    How many they are is told file by file. An ordinary experiment trains as its settings say and leaves none of them out, as
    `zoo data worth` does.
    """
    if not recipe.also_on:
        return
    entries = [with_files_from(entry, data_folder) for entry in recipe_entries(recipe)]
    files = dict.fromkeys([data_folder / recipe.data, *(path for entry in entries for path in _extra(entry))])
    learned = {path: read_battles(path).frame["prompt"].tolist() for path in files if path.is_file()}
    for name in (name for name in recipe.also_on if (data_folder / name).is_file()):  # who reads a missing one tells it
        never = asked_in([data_folder / name])
        for path, prompts in learned.items():
            if count := sum(map(bool, why_masked(prompts, never))):
                yield (
                    f"{name}: {count:,} rows of {path.name} have its prompts, or near-copies, and are learned from: losses "
                    "there are too low; `zoo data mine --never` and `zoo data worth` leave such rows out"
                )


def _extra(entry: Entry) -> list[Path]:
    """The extra files that an entry learns from, in its own training and in an earlier one."""
    if entry.lexical is not None:
        return [extra.file for extra in entry.lexical.extra]
    if entry.train is None:
        return []
    earlier = entry.train.first.extra if entry.train.first else ()
    return [extra.file for extra in (*entry.train.extra, *earlier)]
