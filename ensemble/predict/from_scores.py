"""Blend tables that the members have left elsewhere: no battles, nothing to run, no home."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.plan import Plan, load_plan
from ensemble.predict.board import Board, known_members
from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.import_checks import Given, read_table, told_of_hard, with_rows_of
from zoo.pipeline.submissions import Sample
from zoo.pipeline.table_columns import is_id
from zoo.pipeline.table_files import read_file, refuse_rows
from zoo.reading import check_ordinary
from zoo.scores.form import COMPETITION
from zoo.scores.tables import OK, probabilities, write_submission
from zoo.store import check_output


@dataclass(frozen=True)
class FromScores:
    """What was written.

    `patterns`: rows by the members that made them, the empty set for rows of the prior. `warnings` in a line each.
    """

    output: Path
    rows: int
    patterns: dict[tuple[str, ...], int]
    warnings: tuple[str, ...]

    def summary(self) -> list[str]:
        """Lines for the end of a run; warnings are apart."""
        made = sorted(self.patterns.items(), key=lambda item: -item[1])
        return [
            f"{self.output}: {self.rows:,} rows, blended from tables",
            *(f"  {count:>8,} rows  {' + '.join(names) or 'prior'}" for names, count in made if count),
        ]


def predict_from_scores(
    plan_path: Path,
    scores: Mapping[str, Path],
    output: Path,
    *,
    ids: Path | None = None,
    columns: Mapping[str, str] | None = None,
    like: Sample | None = None,
    say: Say = lambda _: None,
) -> FromScores:
    """Write the blend of the given tables, joined by id.

    `say` gets how each was read. `ids`: a file with the ids to write, in their order; without it they are all that some table
    has, in order of their first. `like`: the sample whose columns are written. Where a row lacks members it gets the plan's
    fallback for those that it has; where it has none, the prior. ZooError before anything is written where a table cannot be
    right, or none is of a member.
    """
    files = [path for path in (ids, like.path if like else None, *scores.values()) if path is not None]
    check_output(output, plan_path, *files)
    plan = load_plan(plan_path)
    scores, strangers = _of_members(plan, scores)
    for path in files:
        check_ordinary(path, mend="give a file")
    wanted = read_ids(ids) if ids is not None else []
    tables = _read(plan, scores, wanted, ids, columns)
    rows = wanted or list(dict.fromkeys(row_id for given in tables.values() for row_id in given.table["id"]))
    for name, given in tables.items():
        notes = [*given.notes, told_of_hard(probabilities(given.table[given.table["status"] == OK]))]
        if any(notes):
            say(f"{scores[name]}: {'; '.join(filter(None, notes))}")
    board = Board(rows, [member.name for member in plan.members], ties=plan.ties)
    for name, given in tables.items():
        board.add(name, given.table)
    everywhere = np.ones(len(rows), dtype=bool)
    blended = board.blended(plan, {member.name: everywhere & (member.gate is None) for member in plan.members})
    write_submission(rows, blended.p, output, like.form if like else COMPETITION)
    if like and (told := like.told_of(rows)):
        say(told)
    warnings = (*strangers, *_warnings(plan, board, scores, blended.made))
    return FromScores(output, len(rows), blended.patterns, warnings)


def _of_members(plan: Plan, scores: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The tables of the plan's members, and a line for each other: a plan need not take all that it was built from.

    ZooError where none is a member's.
    """
    names = [member.name for member in plan.members]
    found = {name: path for name, path in scores.items() if name in names}
    if not found:
        known_members(plan, scores)
    others = [name for name in scores if name not in names]
    return found, [f"{name}: no member of the plan, which has {', '.join(names)}; its table is left alone" for name in others]


def read_ids(path: Path) -> list[str]:
    """The ids of a file in their order.

    ZooError, with the rows, where it has none, or one is blank or there twice.
    """
    frame = read_file(path, wanted=lambda name: is_id(name, {}), is_id=lambda _: True, is_text=lambda _: False).frame
    if frame.shape[1] != 1:
        names = " and ".join(frame.columns) or "no column"
        raise ZooError(f"{path}: {names} could be the ids; give a file with one column called id")
    found = frame.iloc[:, 0].astype(str).tolist()
    if not found:
        raise ZooError(f"{path}: has no rows below its header; give at least one id")
    refuse_rows(path, "no id (rows counted from 1)", [place for place, row_id in enumerate(found, start=1) if not row_id])
    refuse_rows(path, "an id that occurs again", [row_id for row_id, times in Counter(found).items() if times > 1])
    return found


def _read(
    plan: Plan, scores: Mapping[str, Path], wanted: Sequence[str], of: Path | None, columns: Mapping[str, str] | None
) -> dict[str, Given]:
    """Each table with the rows that are wanted; without such, as it is, and each has rows of another."""
    tables: dict[str, Given] = {}
    known = set(wanted)
    for name, path in scores.items():
        given = read_table(path, known, ties=plan.ties, given=columns)
        if of is not None:
            given = with_rows_of(given, wanted, path, of)
        elif known and not known & set(given.table["id"]):
            raise ZooError(f"{path}: has none of the ids of the tables before it; give tables of the same rows")
        else:
            known |= set(given.table["id"])
        tables[name] = given
    return tables


def _warnings(plan: Plan, board: Board, scores: Mapping[str, Path], made: np.ndarray) -> list[str]:
    """What a reader of the submission has to know, a line each."""
    found = []
    if any(pool.blend.reads_lengths for pool in plan.pools):
        found.append(
            "the plan's trees read the lengths of prompt and answers, which tables do not have: rows are blended by the pool "
            "that they correct; give the battles to have them corrected"
        )
    for member in plan.members:
        name = member.name
        if name not in scores:
            found.append(f"{name}: no table is given (--scores {name}=FILE); rows are blended without it")
            continue
        if lacking := int((~board.has(name)).sum()):
            found.append(f"{name}: not in {lacking:,} of {len(made):,} rows, which are blended without it")
    if unmade := int((~made).sum()):
        found.append(f"no member is in {unmade:,} of {len(made):,} rows: they hold the plan's prior")
    return found
