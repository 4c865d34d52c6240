"""Checks of score tables made elsewhere: what cannot be right is refused by row id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.reading import check_ordinary

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from zoo.data.battles import Battles

COMPETITION = {"winner_model_a": "p_a", "winner_model_b": "p_b", "winner_tie": "p_tie"}
# Published tables are float32 or rounded to 4 decimals: three such roundings stay within this. Rows are then scaled to 1.
SUM_ROUNDING = 2e-4
BLANKS = ("", "nan", "NaN", "NA", "null", "None")
# Exchanging A and B must gain at least this many nats a row, and this many standard errors, before it is called a swap.
SWAP_NATS, SWAP_ERRORS = 0.02, 5.0


def read_table(path: Path) -> pd.DataFrame:
    """The score table of a csv or parquet file, each scored row summing to 1 exactly.

    Columns are as `zoo.pipeline.import_table.import_scores` says. ZooError, with row ids, for what cannot be right whatever the
    battles.
    """
    import numpy as np

    from zoo.scores.tables import OK, PROBABILITIES, probabilities

    frame = _read(path)
    _check_ids(frame, path)
    table = _as_score_table(frame, path)
    ok = (table["status"] == OK).to_numpy()
    p = probabilities(table)
    _check_numbers(p[ok], table["id"][ok].to_numpy(), path)
    p[ok] /= p[ok].sum(axis=1, keepdims=True)
    p[~ok] = np.nan
    table[list(PROBABILITIES)] = p
    return table


def checked_table(path: Path, battles: Battles) -> pd.DataFrame:
    """The score table of a file for labelled battles. ZooError where it cannot be right."""
    import numpy as np

    from zoo.scores.tables import OK, probabilities

    table = read_table(path)
    _check_battles(table["id"], battles, path)
    truth = battles.frame.set_index("id")["label"].reindex(table["id"]).fillna(-1).to_numpy(dtype=np.int64)
    known = (table["status"] == OK).to_numpy() & (truth >= 0)
    if not known.any():
        raise ZooError(f"{path}: none of its {len(table)} rows is scored and labelled; give a table with probabilities")
    _check_sides(probabilities(table)[known], truth[known], path)
    return table


def _read(path: Path) -> pd.DataFrame:
    """A table with the columns id, p_a, p_b, p_tie, whatever they were called."""
    import pandas as pd

    check_ordinary(path, mend="give a table as csv or parquet")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            blanks = {column: list(BLANKS) for column in [*COMPETITION, *COMPETITION.values()]}
            options: dict[str, Any] = {"keep_default_na": False, "na_values": blanks}  # an id may well be "NA"
            frame = pd.read_csv(path, dtype={"id": "str"}, float_precision="round_trip", **options)
    except (OSError, ValueError, ImportError) as error:
        raise ZooError(f"{path}: cannot be read as csv or parquet ({(str(error).splitlines() or ['empty'])[0]})") from error
    if set(COMPETITION) <= set(frame.columns):
        frame = frame.rename(columns=COMPETITION)
    missing = [column for column in ("id", "p_a", "p_b", "p_tie") if column not in frame.columns]
    if missing:
        raise ZooError(
            f"{path}: lacks column {', '.join(missing)}; it needs id, p_a, p_b, p_tie, or id, {', '.join(COMPETITION)}"
        )
    return frame


def _as_score_table(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    from zoo.scores.tables import NO_FOLD, OK, score_table

    fold, n_tokens = _integers(frame, "fold", path, least=NO_FOLD, absent=NO_FOLD), _integers(frame, "n_tokens", path)
    try:
        return score_table(
            frame["id"].astype(str).tolist(),
            frame[["p_a", "p_b", "p_tie"]].to_numpy(dtype="float64"),
            fold=fold,
            n_tokens=n_tokens,
            status=frame["status"].fillna(OK).replace("", OK).astype(str).tolist() if "status" in frame else OK,
        )
    except (ValueError, TypeError) as error:
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
    _refuse(path, f"a {column} that is not a whole number from {least} to {2**31 - 1}", bad)
    return [value for value in found if value is not None]


def _check_ids(frame: pd.DataFrame, path: Path) -> None:
    """Every row has an id, and no other row has it."""
    ids = frame["id"]
    blank = frame.index[ids.isna() | (ids.astype(str).str.strip() == "")]
    _refuse(path, "no id (rows counted from 1)", [int(i) + 1 for i in blank])
    ids = ids.astype(str)
    _refuse(path, "an id that occurs again", list(dict.fromkeys(ids[ids.duplicated()])))


def _check_battles(ids: pd.Series, battles: Battles, path: Path) -> None:
    """Every usable battle has one row, and every row is a battle."""
    known = set(battles.ids)
    strangers = [row_id for row_id in ids if row_id not in known]
    if len(strangers) == len(ids):
        raise ZooError(f"{path}: none of its {len(ids)} ids is in {battles.path}; give the battles that were scored")
    _refuse(path, f"an id that {battles.path.name} does not have (scores of other data?)", strangers)
    held = set(ids)
    missing = [row_id for row_id in battles.frame["id"] if row_id not in held]
    what = f"a row in {battles.path.name} and none here; score them, or say why not in a column `status`"
    _refuse(path, what, missing)


def _check_numbers(p: np.ndarray, ids: np.ndarray, path: Path) -> None:
    """Refuse probabilities (rows, 3) that are not finite, not negative and summing to 1.

    Logits and logarithms are told by name.
    """
    import numpy as np

    if not len(p):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        sums, logs = p.sum(axis=1), np.exp(np.minimum(p, 1)).sum(axis=1)
    off = ~(np.abs(sums - 1) <= SUM_ROUNDING)
    outside = ((p < 0) | (p > 1)).any(axis=1)
    if (p <= 0).all() and np.mean(np.abs(logs - 1) < 0.01) > 0.99:
        raise ZooError(f"{path}: holds log-probabilities, not probabilities; take exp of p_a, p_b, p_tie")
    if np.mean(off & outside) > 0.5 and np.ptp(sums) > 0.01 * abs(sums.mean()):  # percentages have one sum
        raise ZooError(f"{path}: holds raw logits, not probabilities; take the softmax of p_a, p_b, p_tie")
    _refuse(path, "a probability that is NaN or infinite", ids[~np.isfinite(p).all(axis=1)])
    _refuse(path, "a negative probability", ids[(p < 0).any(axis=1)])
    _refuse(path, "probabilities that do not sum to 1", ids[off])


def _check_sides(p: np.ndarray, y: np.ndarray, path: Path) -> None:
    """Refuse a table whose p_a and p_b are exchanged: far better the other way round."""
    from zoo.scores.metrics import log_loss_rows
    from zoo.scores.tables import swap_sides

    given, exchanged = log_loss_rows(p, y), log_loss_rows(swap_sides(p), y)
    gain = given - exchanged
    error = gain.std() / max(1, len(gain)) ** 0.5
    if gain.mean() > SWAP_NATS and gain.mean() > SWAP_ERRORS * error:
        raise ZooError(
            f"{path}: p_a and p_b look exchanged: log loss {given.mean():.4f} as given, {exchanged.mean():.4f} with them "
            "exchanged; swap the two columns"
        )


def _refuse(path: Path, what: str, found: Iterable[object]) -> None:
    rows = list(found)
    if rows:
        more = ", ..." if len(rows) > 10 else ""
        verb = "row has" if len(rows) == 1 else "rows have"
        raise ZooError(f"{path}: {len(rows)} {verb} {what}: {', '.join(map(str, rows[:10]))}{more}")
