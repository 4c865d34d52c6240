"""Which columns of a table are its ids and probabilities; never labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError

if TYPE_CHECKING:
    import pandas as pd

    from zoo.pipeline.table_files import TableFile

NAMES = ("a", "b", "tie")
PLAIN = ("p_a", "p_b", "p_tie")
LABELS = ("winner_model_a", "winner_model_b", "winner_tie")  # a submission's probabilities, and a battles file's labels
IDS = ("id", "row_id", "battle_id", "question_id")
PREFIXES = ("p_", "prob_", "proba_", "probability_", "pred_", "prediction_")
# Names by lower case, the tie's last; a table of two classes has none. `model_a` alone names a model.
USUAL = [
    *((f"{prefix}{side}a", f"{prefix}{side}b", f"{prefix}tie") for prefix in PREFIXES for side in ("", "model_")),
    ("a", "b", "tie"),
]
_KNOWN = frozenset((*IDS, *LABELS, *(name for names in USUAL for name in names)))
HOW = "name those that are with `zoo import --columns a=...,b=...,tie=...`, or keep only them"


class Columns(dict[str, str]):
    """Column names of a table by what they are: `id`, `a`, `b` and, but for two classes, `tie`."""

    def __str__(self) -> str:
        return ",".join(f"{part}={name}" for part, name in self.items())

    @property
    def probabilities(self) -> tuple[str, ...]:
        return tuple(self[part] for part in NAMES if part in self)


def parse_columns(text: str) -> dict[str, str]:
    """`a=..., b=..., tie=...[, id=...]` as names by part; ZooError for anything else."""
    parts = [part.partition("=") for part in text.split(",")]
    found = {part.strip(): name.strip() for part, _, name in parts}
    if not {"a", "b"} <= found.keys() or found.keys() - {*NAMES, "id"} or not all(found.values()) or len(found) < len(parts):
        raise ZooError(f"--columns {text}: give a=NAME,b=NAME,tie=NAME, and id=NAME where the ids are not called id")
    return found


def is_id(name: str, given: Mapping[str, str]) -> bool:
    """Whether a column can be the ids, which are text whatever they look like."""
    return name == given.get("id", "") or name.lower() in IDS


def can_be_read(name: str, given: Mapping[str, str]) -> bool:
    """Whether a column can be the ids, probabilities or labels."""
    return name in given.values() or name.strip().lower() in _KNOWN


def find_columns(file: TableFile, path: Path, given: Mapping[str, str]) -> tuple[Columns, list[str]]:
    """The columns to read, and notes on those that could have been read and are not.

    `given`: those that the user named. ZooError where a column is missing, where two sets of columns could be the
    probabilities, or where the only ones are labels.
    """
    frame, by_lower = file.frame, dict[str, str]()
    for name in frame.columns:
        by_lower.setdefault(str(name).lower(), name)
    found = Columns(id=_id_column(file, by_lower, path, given.get("id", "")))
    if "a" in given:
        return _named(found, file, path, given), []
    sets = [tuple(by_lower[name] for name in names) for names in USUAL if set(names) <= by_lower.keys()]
    labels = tuple(by_lower[name] for name in LABELS) if set(LABELS) <= by_lower.keys() else ()
    notes = []
    if labels and is_one_hot(frame, labels):
        if not sets:
            raise ZooError(
                f"{path}: {', '.join(labels)} hold labels (one 1 a row), not probabilities, and no other columns have a usual "
                f"name; {HOW}"
            )
        notes.append(f"{', '.join(labels)} are labels (one 1 a row) and are not read")
    elif labels:
        sets.append(labels)
    if not sets:
        sets = [tuple(by_lower[name] for name in names[:2]) for names in USUAL if set(names[:2]) <= by_lower.keys()]
    if not sets:
        missing = ", ".join(name for name in PLAIN if name not in by_lower)
        raise ZooError(f"{path}: lacks column {missing}; it needs id, p_a, p_b, p_tie, or other names: {HOW}")
    if len(sets) > 1:
        named = " and ".join(", ".join(names) for names in sets)
        raise ZooError(f"{path}: {named} could all be the probabilities; {HOW}")
    return Columns(found | dict(zip(NAMES, sets[0], strict=False))), notes


def is_one_hot(frame: pd.DataFrame, columns: tuple[str, ...]) -> bool:
    """Whether each row that is not blank has one 1 and else 0 here, as labels have."""
    import pandas as pd

    values = frame[list(columns)].apply(pd.to_numeric, errors="coerce").dropna(how="all")
    return bool(len(values)) and bool((values.isin([0, 1]).all(axis=1) & (values.sum(axis=1) == 1)).all())


def _id_column(file: TableFile, by_lower: Mapping[str, str], path: Path, given: str) -> str:
    if given:
        if given not in file.header:
            raise ZooError(f"{path}: has no column {given!r} (--columns id={given}); it has {_names(file)}")
        return given
    name = next((by_lower[name] for name in IDS if name in by_lower), None)
    if name is None:
        raise ZooError(f"{path}: lacks column id; it has {_names(file)}; {HOW.replace('a=', 'id=...,a=')}")
    return name


def _named(found: Columns, file: TableFile, path: Path, given: Mapping[str, str]) -> Columns:
    for part, name in given.items():
        if name not in file.header:
            raise ZooError(f"{path}: has no column {name!r} (--columns {part}={name}); it has {_names(file)}")
    return Columns(found | {part: given[part] for part in NAMES if part in given})


def _names(file: TableFile) -> str:
    return ", ".join(file.header)[:300]
