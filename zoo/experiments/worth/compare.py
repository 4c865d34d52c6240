"""Compare trained models: losses by area, gains of each source, the curve of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.data.splits import NEAR_PROMPTS, group_hashes
from zoo.data.usable import usable_battles
from zoo.errors import ZooError
from zoo.experiments.scored import Labels, Scored
from zoo.experiments.worth.recipe import MAIN, Cells, Config, WorthRecipe, is_part, together, whole
from zoo.scores.gains import LEAST_PROMPTS, cross_recalibrated_losses, drowns_at, paired_gain
from zoo.scores.metrics import log_loss_rows
from zoo.scores.worth import (
    ALL,
    ALONE,
    BESIDE,
    CHOOSE,
    EVERY,
    HELD_OUT,
    REPORT,
    Area,
    Contrast,
    CurvePoint,
    Drowned,
)

Learned = Callable[[Sequence[str]], float]  # rows that a training on some sources learns of them, the mean over folds
Tables = Mapping[str, Mapping[str, Scored]]  # by run and file
HALF = np.uint64(32)  # the bit of a group's hash that says which half its prompt is of; folds go by the hash's remainder


@dataclass(frozen=True)
class Rows:
    """An area's rows: ids, and the group of near-copies of each one's prompt."""

    area: Area
    ids: Sequence[str]
    groups: np.ndarray


@dataclass(frozen=True)
class Losses:
    """Losses of one configuration on an area: (rows, seeds), raw and recalibrated."""

    raw: np.ndarray
    recalibrated: np.ndarray


def read_areas(recipe: WorthRecipe, data_folder: Path, labels: Mapping[str, Labels]) -> list[Rows]:
    """The areas that gains are measured on.

    Held-out rows, and of each other file all rows, one half of its prompts, and the other.

    A half without two prompts is none.
    """
    found: list[Rows] = []
    for name in (recipe.data, *recipe.also_on):
        frame = usable_battles(data_folder / name).frame
        hashes = group_hashes(frame, NEAR_PROMPTS)
        known = frame["id"].isin(labels[name].by_id.keys()).to_numpy()
        if name == recipe.data:
            own = group_hashes(frame, recipe.held.rule) % np.uint64(recipe.held.n_folds)
            parts = {HELD_OUT: known & np.isin(own.astype(np.int64), recipe.folds)}
        else:
            half = (hashes >> HALF) % np.uint64(2) == 0
            parts = {ALL: known, CHOOSE: known & half, REPORT: known & ~half}
        for part, rows in parts.items():
            if len(np.unique(hashes[rows])) >= LEAST_PROMPTS:
                found.append(Rows(Area(data=name, part=part), frame["id"][rows].tolist(), hashes[rows]))
            elif part in (HELD_OUT, ALL):
                raise ZooError(f"{data_folder / name}: fewer than two labelled prompts ({part}); a gain says nothing of others")
    return found


class Models:
    """Losses of trained models, read once.

    `lexical`: by entry, whether its training has no chance, so that one run stands for every seed.
    """

    def __init__(
        self, recipe: WorthRecipe, cells: Cells, tables: Tables, lexical: Mapping[str, bool], areas: Sequence[Rows]
    ) -> None:
        self._recipe, self._cells, self._tables, self._lexical = recipe, cells, tables, lexical
        self._known: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        files = (rows for rows in areas if rows.area.part in (HELD_OUT, ALL))
        self._groups = {rows.area.data: dict(zip(rows.ids, rows.groups.tolist(), strict=True)) for rows in files}

    def losses(self, entry: str, config: Config, rows: Rows) -> Losses:
        """Losses on the rows of an area.

        Where several models of a seed have a row, as those of all folds do of another file, the mean of theirs.
        """
        chance = not self._lexical[entry] or is_part(config)
        seeds = self._recipe.seeds if chance else self._recipe.seeds[:1]
        columns = [self._of_seed(entry, config, seed, rows) for seed in seeds]
        return Losses(*(np.stack([column[:, kind] for column in columns], axis=1) for kind in (0, 1)))

    def _of_seed(self, entry: str, config: Config, seed: int, rows: Rows) -> np.ndarray:
        """(rows, 2): raw and recalibrated."""
        titles = self._cells.titles(entry, config, self._recipe.folds, seed)
        tables = [self._run(title, rows.area.data) for title in titles]
        found = [[table[row_id] for table in tables if row_id in table] for row_id in rows.ids]
        if missing := [row_id for row_id, each in zip(rows.ids, found, strict=True) if not each]:
            raise ZooError(f"{titles[0]}: has no probabilities of {len(missing)} rows of {rows.area.data}, first {missing[0]}")
        return np.array([np.mean(each, axis=0) for each in found])

    def _run(self, title: str, data: str) -> dict[str, tuple[float, float]]:
        """Raw and recalibrated loss of a run by row id.

        Recalibration is fitted on the run's own rows of the file, by folds of prompts.
        """
        key = (title, data)
        if key not in self._known:
            groups, scored = self._groups[data], self._tables[title][data]
            scored = scored.of(np.array([row_id in groups for row_id in scored.ids]))
            own = np.array([groups[row_id] for row_id in scored.ids], dtype=np.uint64)
            raw = log_loss_rows(scored.p, scored.y)
            moved = cross_recalibrated_losses(scored.p, scored.y, own, ties=scored.ties)
            self._known[key] = dict(zip(scored.ids, zip(raw.tolist(), moved.tolist(), strict=True), strict=True))
        return self._known[key]


def compare(
    recipe: WorthRecipe,
    models: Models,
    areas: Sequence[Rows],
    usable: Mapping[str, int],
    learned: Learned,
) -> tuple[list[Contrast], list[CurvePoint], list[Drowned]]:
    """Every contrast, the points of every curve, and where each curve drowns.

    `usable`: rows of each source that was trained on; `learned`: rows that a training on some of them learns.
    """
    contrasts, curve, drowned = [], [], []
    for entry in recipe.entries:
        for rows in areas:
            contrasts += list(_contrasts(recipe, models, entry.title, rows, usable, learned))
            for name in usable:
                points, at = _curve(recipe, models, entry.title, name, rows, usable[name])
                curve += points
                drowned += [at] if points and recipe.rows else []
    return contrasts, curve, drowned


def _contrasts(
    recipe: WorthRecipe,
    models: Models,
    entry: str,
    rows: Rows,
    usable: Mapping[str, int],
    learned: Learned,
) -> Iterator[Contrast]:
    every = together(recipe, usable)
    asked = [(name, ALONE, MAIN, whole([name]), learned([name])) for name in usable]
    for name in every:
        others = [other for other in every if other != name]
        asked.append((name, BESIDE, whole(others), whole(every), learned(every) - learned(others)))
    if every:
        asked.append((" + ".join(every), EVERY, MAIN, whole(every), learned(every)))
    for source, kind, without, with_it, count in asked:
        before, after = models.losses(entry, without, rows), models.losses(entry, with_it, rows)
        yield Contrast(
            entry=entry,
            source=source,
            kind=kind,
            area=rows.area,
            rows=count,
            log_loss=(float(before.raw.mean()), float(after.raw.mean())),
            raw=paired_gain(before.raw, after.raw, rows.groups),
            recalibrated=paired_gain(before.recalibrated, after.recalibrated, rows.groups),
        )


def _curve(
    recipe: WorthRecipe, models: Models, entry: str, name: str, rows: Rows, usable: int
) -> tuple[list[CurvePoint], Drowned]:
    """The points of a source's curve, the whole source the last, and where it drowns."""
    counts = [0, *(count for count in recipe.rows if count < usable), usable]
    found = [models.losses(entry, MAIN if not n else whole([name]) if n == usable else ((name, n),), rows) for n in counts]
    seeds = max(losses.raw.shape[1] for losses in found)
    wide = [Losses(*(np.broadcast_to(each, (len(rows.ids), seeds)) for each in (one.raw, one.recalibrated))) for one in found]
    points = [
        CurvePoint(
            entry=entry,
            source=name,
            area=rows.area,
            rows=count,
            raw=paired_gain(found[0].raw, losses.raw, rows.groups),
            recalibrated=paired_gain(found[0].recalibrated, losses.recalibrated, rows.groups),
        )
        for count, losses in zip(counts[1:], found[1:], strict=True)
    ]
    at = drowns_at(counts, [losses.raw for losses in wide], rows.groups)
    return points, Drowned(entry=entry, source=name, area=rows.area, at=at)
