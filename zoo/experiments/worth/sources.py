"""A source's rows as trainings may learn them, whole and in parts."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import Held, Say, changed
from zoo.data.battles import Battles
from zoo.data.columns import VOTES, WINNER_COLUMNS
from zoo.data.keys import battle_keys
from zoo.data.masks import EXACT, asked_in, why_masked
from zoo.data.splits import NEAR_PROMPTS, group_hashes
from zoo.data.usable import usable_battles
from zoo.data.votes import vote_shares
from zoo.errors import ZooError
from zoo.experiments.worth.recipe import WorthRecipe, WorthSource
from zoo.stages.train.extra_battles import why_not
from zoo.store import replacing

OTHERS, OTHERS_NEAR = "of prompts of the other battles", "near-copies of prompts of the other battles"


@dataclass(frozen=True)
class Prepared:
    """A source as it is learned from.

    `frame`: rows that at least one training may learn, with `votes` (rows, 3) or None; `learned` (rows, folds): those of which
    fold may. `left_out`: rows by reason.
    """

    source: WorthSource
    frame: pd.DataFrame
    votes: np.ndarray | None
    learned: np.ndarray
    labelled: int
    left_out: dict[str, int]

    @property
    def empty(self) -> str:
        """Why it cannot be trained on, empty where it can: a fold has no row of it."""
        rows = self.learned.sum(axis=0) if len(self.frame) else np.zeros(1)
        if rows.min() > 0:
            return ""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items()) or "it has no labels"
        return f"0 rows left of {self.labelled:,} labelled ones: {reasons}"

    def part(self, rows: int, seed: int) -> np.ndarray:
        """Places of `rows` of its rows, int64.

        The first by a hash of seed and prompt, so that a larger part holds a smaller one.
        """
        groups = group_hashes(self.frame, NEAR_PROMPTS)
        keys = [
            hashlib.sha256(f"{seed}/{group}".encode()).digest() + hashlib.sha256(f"{seed}/{row_id}".encode()).digest()
            for group, row_id in zip(groups, self.frame["id"], strict=True)
        ]
        chosen: np.ndarray = np.sort(np.array(sorted(range(len(keys)), key=keys.__getitem__)[:rows], dtype=np.int64))
        return chosen


def prepare(recipe: WorthRecipe, source: WorthSource, main: Battles, data_folder: Path, folds: tuple[int, ...]) -> Prepared:
    """Read a source and find what may be learned of it.

    Left out are prompts of the files in `also_on` and their near-copies, and what no training may learn: battles of the main
    file and, where one fold is held out alone, its prompts.
    """
    path = data_folder / source.file
    battles = usable_battles(path, keep=VOTES)
    votes = None
    if source.targets == "votes" and set(VOTES) <= set(battles.kept):
        votes = vote_shares(battles, battles.frame["id"].tolist())
    labels = battles.frame["label"].to_numpy(dtype=np.int64)
    says = labels >= 0 if votes is None else (labels >= 0) | np.isfinite(votes).all(axis=1)
    frame, votes = battles.frame[says].reset_index(drop=True), None if votes is None else votes[says]
    never = asked_in([data_folder / name for name in recipe.also_on]) if recipe.also_on else set()
    masked = np.array(why_masked(frame["prompt"].tolist(), never), dtype=object)
    reasons = np.where(masked == "", "", np.where(masked == EXACT, OTHERS, OTHERS_NEAR)).astype(object)
    by_fold = [_reasons(frame, main, recipe.held, fold) for fold in folds]
    learned = np.stack([found == "" for found in by_fold], axis=1) & (reasons == "")[:, None]
    reasons = np.where(reasons == "", by_fold[0], reasons)
    some = learned.any(axis=1)
    return Prepared(
        source,
        frame[some].reset_index(drop=True),
        None if votes is None else votes[some],
        learned[some],
        len(frame),
        dict(Counter(reasons[~some].tolist())),
    )


def known_beforehand(recipe: WorthRecipe, main: Battles, data_folder: Path) -> list[str]:
    """Of each other file, how many rows of the main file ask its prompts.

    Every training learns those, with a source or not.
    """
    found = []
    for name in recipe.also_on:
        reasons = why_masked(main.frame["prompt"].tolist(), asked_in([data_folder / name]))
        if count := sum(map(bool, reasons)):
            found.append(
                f"{name}: {count:,} rows of {recipe.data} have its prompts or near-copies of them, and every training learns "
                "from those that it does not hold out: losses there are too low, with a source and without"
            )
    return found


def _reasons(frame: pd.DataFrame, main: Battles, held: Held, fold: int) -> np.ndarray:
    return why_not(frame, main.frame, changed(held, fold=fold), NEAR_PROMPTS)


def write_rows(prepared: Prepared, rows: np.ndarray | None, path: Path) -> None:
    """Some of a source's rows, or all, as a file to learn from.

    The same rows are the same bytes.
    """
    chosen = np.arange(len(prepared.frame)) if rows is None else rows
    frame = prepared.frame.iloc[chosen]
    labels = frame["label"].to_numpy(dtype=np.int64)
    columns: dict[str, object] = {"id": frame["id"].tolist()}
    for name in ("prompt", "response_a", "response_b"):
        columns[name] = [json.dumps(list(turns)) for turns in frame[name]]
    if prepared.votes is not None:
        votes = prepared.votes[chosen]
        labels = np.where(labels < 0, np.nan_to_num(votes).argmax(axis=1), labels)
    columns |= {name: (labels == label).astype(int) for label, name in enumerate(WINNER_COLUMNS)}
    if prepared.votes is not None:
        columns |= {name: votes[:, label] for label, name in enumerate(VOTES)}
    content = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode("utf-8", errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        packed.write(content)


def prepared_sources(recipe: WorthRecipe, main: Battles, data_folder: Path, folds: tuple[int, ...], say: Say) -> list[Prepared]:
    """Every source of a recipe, and what is lost of each told.

    ZooError where nothing is left of any.
    """
    found = []
    for source in recipe.sources:
        one = prepare(recipe, source, main, data_folder, folds)
        rows = one.learned.sum(axis=0)
        lost = ", ".join(f"{count:,} {reason}" for reason, count in one.left_out.items())
        span = f"{rows.min():,}" if rows.min() == rows.max() else f"{rows.min():,} to {rows.max():,} a fold"
        learned = f"{span} of {one.labelled:,} labelled rows are learned from"
        say(f"{source.name}: {one.empty or learned + (f'; left out: {lost}' if lost else '')}")
        found.append(one)
    if all(one.empty for one in found):
        raise ZooError(f"{recipe.sources[0].name}: {found[0].empty}; no source is left to train with")
    return found


def check_overlap(sources: Sequence[Prepared]) -> None:
    """ZooError where a source beside others has, for a fold, no row that those before it lack."""
    ids: set[str] = set()
    keys: set[object] = set()
    for one in sources:
        own = battle_keys(one.frame)
        new = np.array([i not in ids and key not in keys for i, key in zip(one.frame["id"], own, strict=True)], dtype=bool)
        if not one.learned[new].any(axis=0).all():
            raise ZooError(
                f"{one.source.name}: its battles are all in sources before it, so beside them it is nothing; "
                "set together = false for it"
            )
        ids |= set(one.frame["id"])
        keys |= set(own)


def rows_learned(sources: Sequence[Prepared], folds: Sequence[int]) -> Callable[[Sequence[str]], float]:
    """How many rows a training on some sources learns of them.

    The mean over some folds (columns of `learned`), by the sources' names.
    A battle of two sources counts once: it is learned from the first of them.
    """
    keys = {one.source.name: battle_keys(one.frame) for one in sources}

    def of_fold(names: Sequence[str], fold: int) -> int:
        ids, known, count = set[str](), set[object](), 0
        for one in sources:
            if one.source.name not in names:
                continue
            own = [
                (i, key)
                for i, key, may in zip(one.frame["id"], keys[one.source.name], one.learned[:, fold], strict=True)
                if may
            ]
            new = [(i, key) for i, key in own if i not in ids and key not in known]
            count += len(new)
            ids |= {i for i, _ in new}
            known |= {key for _, key in new}
        return count

    return lambda names: float(np.mean([of_fold(names, fold) for fold in folds]))
