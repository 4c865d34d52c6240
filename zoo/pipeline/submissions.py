"""Submissions in a competition's own columns: its sample, and files of that form read back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.columns import UNLABELLED, WINNER, label_of
from zoo.data.formats import open_cells
from zoo.errors import ZooError
from zoo.pipeline.table_columns import IDS, LABELS, NAMES, USUAL, is_id
from zoo.pipeline.table_files import read_file, refuse_rows
from zoo.reading import check_ordinary
from zoo.scores.form import COMPETITION, Form, Part

if TYPE_CHECKING:
    import pandas as pd

    from zoo.pipeline.table_files import TableFile

# Names that are of probabilities in a sample, beside those of tables: there no column holds labels or names of models.
OF_SAMPLES = (("winner_a", "winner_b", "winner_tie"), ("model_a", "model_b", "tie"))
USUAL_WINNERS = {0: "model_a", 1: "model_b"}  # WSDM Cup's
_OTHER = {"a": "b", "b": "a", "A": "B", "B": "A"}


@dataclass(frozen=True)
class Sample:
    """A competition's sample submission: its form and its ids, in their order."""

    path: Path
    form: Form
    ids: tuple[str, ...]

    def told_of(self, ids: Sequence[str]) -> str:
        """How the sample's ids differ from those that are written, as a line, if they do."""
        written, asked = set(self.form.spelled(ids)), set(self.ids)
        lacking = [row_id for row_id in self.ids if row_id not in written]
        beside = [row_id for row_id in self.form.spelled(ids) if row_id not in asked]
        told = [f"{len(lacking):,} of its {len(asked):,} ids are not to be predicted, first {lacking[0]}"] if lacking else []
        told += [f"{len(beside):,} of the {len(written):,} rows written are not in it, first {beside[0]}"] if beside else []
        return f"{self.path}: {'; '.join(told)}" if told else ""


def read_sample(path: Path, given: Mapping[str, str] | None = None) -> Sample:
    """The form and the ids of a sample submission of any format that tables have.

    `given`: names of columns by part, as `parse_columns` reads them; they are for members' tables, too, and are passed over
    where the sample has none of them. ZooError where a column is not known for what it is, or there are no ids.
    """
    check_ordinary(path, mend="give the competition's sample submission")
    named = {name: part for part, name in (given or {}).items()}
    file = read_file(
        path,
        wanted=lambda _: True,
        is_id=lambda name: _part_of(name, named) == "id",
        is_text=lambda name: name.lower() == WINNER,
    )
    columns = _parts(file, path, named)
    by_part = {part: name for name, part in columns.items()}
    ids = file.frame[by_part["id"]].tolist()
    if not ids:
        raise ZooError(f"{path}: has no rows below its header; give the competition's sample submission")
    refuse_rows(path, "no id (rows counted from 1)", [place for place, row_id in enumerate(ids, start=1) if not row_id])
    spelled = _winners(file.frame[by_part["winner"]], path) if "winner" in by_part else {}
    whole = all(row_id.isdecimal() and (row_id == "0" or row_id[0] != "0") for row_id in ids)
    return Sample(path, Form(columns, spelled, whole), tuple(ids))


def _part_of(name: str, named: Mapping[str, str]) -> str | None:
    """What a column of this name holds: `id`, `winner`, `a`, `b`, `tie`, or None where it is not known."""
    if name in named:
        return named[name]
    lower = name.strip().lower()
    if is_id(lower, {}) or lower == WINNER:
        return "id" if is_id(lower, {}) else "winner"
    return next((NAMES[names.index(lower)] for names in (LABELS, *OF_SAMPLES, *USUAL) if lower in names), None)


def _parts(file: TableFile, path: Path, named: Mapping[str, str]) -> dict[str, Part]:
    """What each column holds; ZooError where one is not known, is there twice, or is missing."""
    columns: dict[str, Part] = {}
    for name in file.header:
        part = _part_of(name, named)
        if part is None:
            raise ZooError(f"{path}: what goes into column {name!r} is not known; name it with --columns a=...,b=...,tie=...")
        if part in columns.values():
            first = next(own for own, other in columns.items() if other == part)
            raise ZooError(f"{path}: {first} and {name} could both be {'the ' + part}; keep one")
        columns[name] = part  # type: ignore[assignment]
    held = set(columns.values())
    if "id" not in held:
        raise ZooError(f"{path}: lacks a column of ids, as {' or '.join(IDS)}; it has {', '.join(file.header)[:300]}")
    if "winner" not in held and not {"a", "b"} <= held:
        raise ZooError(f"{path}: has no columns for A and B, nor {WINNER}; it has {', '.join(file.header)[:300]}")
    return columns


def _winners(values: pd.Series, path: Path) -> dict[int, str]:
    """How the sample spells the winners A and B."""
    found: dict[int, str] = {}
    for value in dict.fromkeys(values):
        label = label_of([value])
        if value and label == UNLABELLED:
            raise ZooError(f"{path}: {WINNER} says {value!r}; it must name one of the two models, as model_a or model_b")
        if value:
            found.setdefault(label, value)
    for label, other in ((0, 1), (1, 0)):
        if label in found and other not in found:
            found[other] = _other_side(found[label])
    return {label: (USUAL_WINNERS | found)[label] for label in USUAL_WINNERS}


def _other_side(name: str) -> str:
    """The name of the other model, as model_b for model_a: its last A or B is the other one."""
    place = max(name.rfind(letter) for letter in _OTHER)
    return name[:place] + _OTHER[name[place]] + name[place + 1 :]


def read_predictions(path: Path, ids: Collection[str], *, ties: bool) -> pd.DataFrame:
    """A submission of any form that holds probabilities, as id (str), p_a, p_b, p_tie (float64).

    `ids`: those of the battles; `ties`: whether they can be ties. ZooError where it holds winners alone.
    """
    from zoo.pipeline.import_checks import read_table
    from zoo.scores.tables import PROBABILITIES, read_submission

    check_ordinary(path, mend="give the file that `ensemble predict` wrote")
    with open_cells(path, lambda name: _part_of(name, {}) is not None) as cells:
        header = tuple(cells.header)
    if not header or set(COMPETITION.columns) <= set(header):
        return read_submission(path)
    if any(name.strip().lower() == WINNER for name in header):
        raise ZooError(
            f"{path}: holds winners, and log loss is of probabilities; predict once more without --like, and evaluate that file"
        )
    return read_table(path, ids, ties=ties).table[["id", *PROBABILITIES]]
