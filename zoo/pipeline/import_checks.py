"""Checks of score tables made elsewhere.

What cannot be right is refused by row id, what is harmless is mended and told.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError
from zoo.pipeline.class_order import SIDES, exchange
from zoo.pipeline.table_columns import PLAIN, Columns, can_be_read, find_columns, is_id
from zoo.pipeline.table_files import read_file, refuse_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from zoo.data.battles import Battles

# Three numbers rounded to 3 decimals are off by 1.5e-3 at most, three float16 by 7e-4. Rows are then scaled to 1.
SUM_ROUNDING = 2e-3
SCALED = 1e-9  # a row whose sum is no further from 1 is as it was
SWAP_ERRORS = 5.0  # standard errors that exchanging A and B must gain before a table is refused as swapped
MOST_RIGHT = 0.98  # of rows that hold 0 and 1 alone: nobody tells people's votes so well, so that they are the labels
FEWEST_HARD = 12  # rows by which such a table is told: a model right on 60 % of them is right on all once in 460 tables
MOST_DECIMALS = 5  # a table with more is not called rounded

STATUS = "status"
OTHERS = ("fold", "n_tokens", STATUS)  # columns that a table may have beside


@dataclass(frozen=True)
class Given:
    """A table from elsewhere as a score table, each scored row summing to 1.

    `notes` say what was read and mended. `chosen`: whether other columns could have been read as well, or were named by the
    user.
    """

    table: pd.DataFrame
    columns: Columns
    notes: tuple[str, ...]
    chosen: bool


def read_table(path: Path, ids: Collection[str], *, ties: bool, given: Mapping[str, str] | None = None) -> Given:
    """The score table of a file of any format that is read for the battles with `ids`.

    Columns are as `zoo.pipeline.import_table.import_scores` says, or those that the user named (`given`). `ties`: whether
    battles of this kind can be ties; a table of two classes is whole only where they cannot. ZooError, with row ids, for what
    cannot be right whatever the labels.
    """
    import numpy as np

    from zoo.scores.tables import OK, PROBABILITIES, probabilities

    asked = given or {}
    read = read_file(
        path,
        wanted=lambda name: name in OTHERS or can_be_read(name, asked),
        is_id=lambda name: is_id(name, asked),
        is_text=lambda name: name == STATUS,
    )
    frame = read.frame
    columns, notes = find_columns(read, path, asked)
    chosen = bool(notes or given)
    if columns.probabilities != PLAIN:
        notes.append(f"columns: {columns}")
    if "tie" not in columns:
        if ties:
            raise ZooError(
                f"{path}: has probabilities of A and B alone, and battles of this kind can be ties; add the column p_tie, and "
                "let the three sum to 1"
            )
        notes.append("no column is the tie's, and no battle is a tie: p_tie is 0")
        frame = frame.assign(**{"no tie": 0.0})
    values = [*columns.probabilities, *(["no tie"] if "tie" not in columns else [])]
    frame = frame[[columns["id"], *values, *(name for name in OTHERS if name in frame.columns)]]
    frame = frame.set_axis(["id", *PLAIN, *(name for name in OTHERS if name in frame.columns)], axis=1)
    frame, told = _with_known_ids(frame, ids, path)
    _check_ids(frame, path)
    table = _as_score_table(frame, path)
    ok = (table["status"] == OK).to_numpy()
    p = probabilities(table)
    _check_numbers(p[ok], table["id"][ok].to_numpy(), path)
    sums = p[ok].sum(axis=1, keepdims=True)
    told += _rounded(p[ok])
    if scaled := int((np.abs(sums - 1) > SCALED).sum()):
        told.append(f"{scaled:,} rows sum to 1 within {np.abs(sums - 1).max():.1g} and were scaled to it")
    p[ok] /= sums
    p[~ok] = np.nan
    table[list(PROBABILITIES)] = p
    return Given(table, columns, (*notes, *told), chosen)


def checked_table(path: Path, battles: Battles, given: Mapping[str, str] | None = None, *, whole: bool = True) -> Given:
    """The score table of a file for labelled battles. ZooError where it cannot be right.

    Not `whole`: it may lack rows of the battles, and have others, which are left alone and told.
    """
    import numpy as np

    from zoo.data.splits import prompt_groups
    from zoo.scores.tables import OK, probabilities, without_ties

    label = battles.frame.set_index("id")["label"]
    read = read_table(path, set(battles.ids), ties=battles.can_tie, given=given)
    if whole:
        _check_battles(read.table["id"], battles, path)
    else:
        read = with_rows_of(read, battles.ids, path, battles.path)
    table = read.table
    truth = label.reindex(table["id"]).fillna(-1).to_numpy(dtype=np.int64)
    known = (table["status"] == OK).to_numpy() & (truth >= 0)
    if not known.any():
        raise ZooError(f"{path}: none of its {len(table)} rows is scored and labelled; give a table with probabilities")
    p = probabilities(table)[known]
    p = p if battles.can_tie else without_ties(p)
    _check_labels(p, truth[known], path, read.columns)
    groups = prompt_groups(battles.frame.set_index("id").loc[table["id"][known]])
    _check_sides(p, truth[known], groups, path)
    return read


def with_rows_of(read: Given, ids: Sequence[str], path: Path, of: Path) -> Given:
    """The rows of a table that the ids of another file ask for.

    What it lacks and what it has beside is told. ZooError where it has none of them.
    """
    asked, has = set(ids), set(read.table["id"])
    table = read.table[read.table["id"].isin(asked)].reset_index(drop=True)
    if table.empty:
        raise ZooError(f"{path}: none of its {len(read.table):,} ids is in {of}; give the table of those rows")
    lacking = [row_id for row_id in ids if row_id not in has]
    told = [f"lacks {len(lacking):,} of the {len(asked):,} rows of {of.name}, first {lacking[0]}"] if lacking else []
    if beside := len(read.table) - len(table):
        told.append(f"{beside:,} rows whose ids {of.name} does not have are left alone")
    return replace(read, table=table, notes=(*read.notes, *told))


def _with_known_ids(frame: pd.DataFrame, ids: Collection[str], path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Ids as text; one that was written as a decimal number (30192.0) is the whole number where the battles have that.

    So is one whose zeros before it were lost or added (1 for 0001). Blank ids stay missing.
    """
    import pandas as pd

    missing = frame["id"].isna()
    text = frame["id"].astype(str).where(~missing)
    known = set(ids)
    whole = {i: found[1] for i in text[~missing] if i not in known and (found := re.fullmatch(r"(-?\d+)\.0*", i))}
    whole = {i: plain for i, plain in whole.items() if plain in known}
    text = text.map(lambda i: whole.get(i, i) if isinstance(i, str) else None)
    zeros = _zeros_apart(text[~missing], known, path)
    text = text.map(lambda i: zeros.get(i, i))
    told = []
    for mended, what in ((whole, "are decimal numbers"), (zeros, "differ in zeros before them")):
        if first := next(iter(mended.items()), None):
            told.append(f"{len(mended):,} ids {what}: {first[0]} is read as {first[1]}")
    return frame.assign(id=pd.Series(text, dtype=object, index=frame.index)), told


def _zeros_apart(ids: Iterable[str], known: set[str], path: Path) -> dict[str, str]:
    """The known id of each that is another but for zeros before it, as where one file has numbers and the other has text.

    Joined as they are, the few that happen to be alike would pass for a table with many rows missing. ZooError where two known
    ids differ by these zeros alone.
    """
    by_number: dict[str, list[str]] = {}
    for i in known:
        if i.isdecimal():
            by_number.setdefault(i.lstrip("0"), []).append(i)
    theirs = {i: by_number[i.lstrip("0")] for i in ids if i.isdecimal() and i.lstrip("0") in by_number}
    mended = {i: own for i, own in theirs.items() if i not in known}
    for i, own in theirs.items() if mended else ():
        if len(own) > 1:
            raise ZooError(f"{path}: id {i} may be {' or '.join(sorted(own))}; write the ids as the battles have them, as text")
    return {i: own[0] for i, own in mended.items()}


def _check_labels(p: np.ndarray, y: np.ndarray, path: Path, columns: Columns) -> None:
    """Refuse a table that is the labels themselves."""
    import numpy as np

    if len(y) >= FEWEST_HARD and is_hard(p).all() and (right := float(np.mean(p.argmax(axis=1) == y))) >= MOST_RIGHT:
        names = ", ".join(columns.probabilities)
        raise ZooError(
            f"{path}: {names} hold only 0 and 1, and {right:.0%} of the rows have the 1 at their own label: these are labels, "
            "not probabilities; give the columns that a model made"
        )


def is_hard(p: np.ndarray) -> np.ndarray:
    """Which rows of probabilities (rows, 3) are a 1 and two 0: bool (rows,)."""
    found: np.ndarray = ((p == 0) | (p == 1)).all(axis=1)
    return found


def told_of_hard(p: np.ndarray) -> str:
    """How many rows of probabilities (rows, 3) are a 1 and two 0; empty where none is."""
    rows = int(is_hard(p).sum())
    return f"hard: {rows:,} of {len(p):,} rows are a 1 and two 0" if rows else ""


def _as_score_table(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    from zoo.scores.tables import NO_FOLD, OK, score_table

    fold, n_tokens = _integers(frame, "fold", path, least=NO_FOLD, absent=NO_FOLD), _integers(frame, "n_tokens", path)
    try:
        return score_table(
            frame["id"].astype(str).tolist(),
            frame[list(PLAIN)].to_numpy(dtype="float64"),
            fold=fold,
            n_tokens=n_tokens,
            status=frame["status"].astype(object).fillna(OK).replace("", OK).astype(str).tolist() if "status" in frame else OK,
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise ZooError(f"{path}: a column holds what is not a number ({str(error).splitlines()[0]})") from error


def _integers(frame: pd.DataFrame, column: str, path: Path, *, least: int = 0, absent: int = 0) -> list[int]:
    """A column of whole numbers from `least` to 2^31 - 1, others refused by row id.

    Each is `absent` where there is no such column.
    """
    if column not in frame:
        return [absent] * len(frame)

    def whole(value: object) -> int | None:
        try:
            number = int(value)  # type: ignore[call-overload]
        except (ValueError, TypeError, OverflowError):
            return None
        return number if least <= number < 2**31 and (isinstance(value, str) or number == value) else None

    found = [whole(value) for value in frame[column]]
    bad = [row_id for row_id, value in zip(frame["id"], found, strict=True) if value is None]
    refuse_rows(path, f"a {column} that is not a whole number from {least} to {2**31 - 1}", bad)
    return [value for value in found if value is not None]


def _rounded(p: np.ndarray) -> list[str]:
    """To how many decimals a table is rounded, where that is few; nothing of one that is 0 and 1 alone."""
    import numpy as np

    soft = p[~is_hard(p)]
    for decimals in range(1, MOST_DECIMALS + 1) if len(soft) else ():
        if (np.abs(soft - soft.round(decimals)) < 1e-9).all():
            return [f"rounded to {decimals} decimals"]
    return []


def _check_ids(frame: pd.DataFrame, path: Path) -> None:
    """Every row has an id, and no other row has it."""
    ids = frame["id"]
    blank = frame.index[ids.isna() | (ids.astype(str).str.strip() == "")]
    refuse_rows(path, "no id (rows counted from 1)", [int(i) + 1 for i in blank])
    ids = ids.astype(str)
    refuse_rows(path, "an id that occurs again", list(dict.fromkeys(ids[ids.duplicated()])))


def _check_battles(ids: pd.Series, battles: Battles, path: Path) -> None:
    """Every usable battle has one row, and every row is a battle."""
    known = set(battles.ids)
    strangers = [row_id for row_id in ids if row_id not in known]
    if len(strangers) == len(ids):
        raise ZooError(f"{path}: none of its {len(ids)} ids is in {battles.path}; give the battles that were scored")
    refuse_rows(path, f"an id that {battles.path.name} does not have (scores of other data?)", strangers)
    held = set(ids)
    missing = [row_id for row_id in battles.frame["id"] if row_id not in held]
    what = f"a row in {battles.path.name} and none here; score them, or say why not in a column `status`"
    refuse_rows(path, what, missing)


def _check_numbers(p: np.ndarray, ids: np.ndarray, path: Path) -> None:
    """Refuse probabilities (rows, 3) that are not finite, not negative and summing to 1.

    Logits and logarithms are told by name.
    """
    import numpy as np

    if not len(p):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        sums, logs = p.sum(axis=1), np.exp(np.minimum(p, 1)).sum(axis=1)
        spread = np.ptp(sums)
    off = ~(np.abs(sums - 1) <= SUM_ROUNDING)
    outside = ((p < 0) | (p > 1)).any(axis=1)
    if (p <= 0).all() and np.mean(np.abs(logs - 1) < 0.01) > 0.99:
        raise ZooError(f"{path}: holds log-probabilities, not probabilities; take exp of p_a, p_b, p_tie")
    if np.mean(off & outside) > 0.5 and spread > 0.01 * abs(sums.mean()):  # percentages have one sum
        raise ZooError(f"{path}: holds raw logits, not probabilities; take the softmax of p_a, p_b, p_tie")
    refuse_rows(path, "a probability that is NaN or infinite", ids[~np.isfinite(p).all(axis=1)])
    refuse_rows(path, "a negative probability", ids[(p < 0).any(axis=1)])
    refuse_rows(path, "probabilities that do not sum to 1", ids[off])


def _check_sides(p: np.ndarray, y: np.ndarray, groups: np.ndarray, path: Path) -> None:
    """Refuse a table whose p_a and p_b are exchanged: far better the other way round."""
    if found := exchange(p, y, groups, orders=(SIDES,), errors=SWAP_ERRORS):
        raise ZooError(
            f"{path}: p_a and p_b look exchanged: log loss {found.given:.4f} as given, {found.exchanged:.4f} with them "
            "exchanged; swap the two columns"
        )
