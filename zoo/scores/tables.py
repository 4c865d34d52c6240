"""Score tables: a member's probabilities row by row, their card, and the submission.

Columns of a table: id (str), fold (int64, -1 where none), p_a, p_b, p_tie (float64, in the battle's own A and B whatever order
was scored), n_tokens, n_truncated_tokens (int64), status (`ok`, or why the row was not scored: its probabilities are NaN).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from zoo.contracts import Manifest, Order, ScoreCard, first_fault
from zoo.errors import ZooError, amount
from zoo.reading import check_ordinary
from zoo.scores.form import COMPETITION, Form
from zoo.store import MANIFEST, write_atomic

if TYPE_CHECKING:
    import pandas as pd

# Files of a variant's folder, and of an evaluation's.
SCORES = "scores.parquet"
CARD = "scores.json"
CHUNKS = "chunks"  # folder of the finished parts of a table, each a table
EVALUATED = "probabilities.parquet"

OK = "ok"
BAD_ROW = "bad row: see `zoo data validate`"  # status of a row that cannot be read
NO_FOLD = -1
PROBABILITIES = ("p_a", "p_b", "p_tie")  # in the order of contracts.LABELS
COLUMNS = ("id", "fold", *PROBABILITIES, "n_tokens", "n_truncated_tokens", "status")
SUBMISSION_COLUMNS = tuple(COMPETITION.columns)
SUM_TOLERANCE = 1e-6
_DTYPES = {"id": "str", "fold": "int64", "n_tokens": "int64", "n_truncated_tokens": "int64", "status": "str"} | dict.fromkeys(
    PROBABILITIES, "float64"
)


def score_table(
    ids: Sequence[str],
    p: np.ndarray,
    *,
    fold: Sequence[int] | np.ndarray | int = NO_FOLD,
    n_tokens: Sequence[int] | np.ndarray | int = 0,
    n_truncated_tokens: Sequence[int] | np.ndarray | int = 0,
    status: Sequence[str] | str = OK,
) -> pd.DataFrame:
    """A score table from ids and probabilities of shape (rows, 3).

    The other columns may be one value for all rows.
    """
    p = np.asarray(p, dtype=np.float64).reshape(len(ids), 3)
    columns: dict[str, Any] = {"id": list(ids), "fold": fold, **{name: p[:, i] for i, name in enumerate(PROBABILITIES)}}
    columns |= {"n_tokens": n_tokens, "n_truncated_tokens": n_truncated_tokens, "status": status}
    return pd.DataFrame(columns, index=range(len(ids)), columns=list(COLUMNS)).astype(_DTYPES)


def unscored_table(ids: Sequence[str], status: str) -> pd.DataFrame:
    """Rows that could not be scored, and why: NaN probabilities, never a silent 1/3."""
    return score_table(ids, np.full((len(ids), 3), np.nan), status=status)


def probabilities(frame: pd.DataFrame) -> np.ndarray:
    """p_a, p_b, p_tie of a score table as one array, float64 of shape (rows, 3)."""
    return frame[list(PROBABILITIES)].to_numpy(dtype=np.float64)


def label_probabilities(logits: np.ndarray, order: Order) -> np.ndarray:
    """Softmax over label logits (n, 3), in the battle's own A, B, tie whatever order was shown."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    shown: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return shown if order == "ab" else swap_sides(shown)


def swap_sides(p: np.ndarray) -> np.ndarray:
    """Probabilities of the battle with its answers exchanged: (..., 3) -> (..., 3)."""
    return p[..., [1, 0, 2]]


def without_ties(p: np.ndarray) -> np.ndarray:
    """Probabilities where no battle can be a tie: p_tie is 0, the others sum to 1.

    (..., 3) -> (..., 3). Both are 1/2 where nothing but a tie was expected; NaN stays NaN. Exchanging A and B before or after
    is the same to the bit.
    """
    sides = p[..., :2].sum(axis=-1, keepdims=True)
    found = np.zeros_like(p, dtype=np.float64)
    found[..., :2] = np.where(sides > 0, p[..., :2] / np.where(sides > 0, sides, 1.0), np.where(np.isnan(sides), np.nan, 0.5))
    found[..., 2] = np.where(np.isnan(sides[..., 0]), np.nan, 0.0)
    return found


def validate_scores(frame: pd.DataFrame, path: Path | str, *, ids: Sequence[str] | None = None) -> None:
    """ZooError naming the row ids where a table breaks its contract.

    `ids`: those it must hold, in any order.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ZooError(f"{path}: score table lacks column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    id_column = frame["id"]
    _refuse(path, "missing ids (in rows)", frame.index[id_column.isna() | (id_column.astype(str) == "")])
    _refuse(path, "ids that occur more than once", id_column[id_column.duplicated()])
    p, ok = probabilities(frame), (frame["status"] == OK).to_numpy()
    finite = np.isfinite(p).all(axis=1)
    _refuse(path, "probabilities that are NaN or infinite though status is ok", id_column[ok & ~finite])
    _refuse(path, "negative probabilities", id_column[ok & (p < 0).any(axis=1)])
    with np.errstate(invalid="ignore"):
        _refuse(path, "probabilities that do not sum to 1", id_column[ok & ~(np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE)])
    _refuse(path, "probabilities though status is not ok (they must be NaN)", id_column[~ok & ~np.isnan(p).all(axis=1)])
    if ids is not None:
        held, wanted = set(id_column), set(ids)
        _refuse(path, "ids missing from the table", [row_id for row_id in ids if row_id not in held])
        _refuse(path, "ids that the battles do not have", [row_id for row_id in id_column if row_id not in wanted])


def _refuse(path: Path | str, what: str, found: Sequence[object] | pd.Series | pd.Index) -> None:
    if len(found):
        have = "has" if len(found) == 1 else "have"
        named = ", ".join(str(i) for i in list(found)[:5])
        raise ZooError(f"{path}: {amount(len(found), 'row')} {have} {what}: {named}; score them again")


def write_scores(frame: pd.DataFrame, path: Path) -> None:
    """Check a score table and write it as parquet, whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    validate_scores(frame, path)
    table = pyarrow.Table.from_pandas(frame[list(COLUMNS)].astype(_DTYPES), preserve_index=False)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def read_scores(path: Path) -> pd.DataFrame:
    """Read and check a score table."""
    frame = read_columns(path)
    validate_scores(frame, path)
    return frame[list(COLUMNS)].astype(_DTYPES)


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns of a score table, all where none are named; what is in them is not checked.

    ZooError where the file is empty, damaged or lacks one.
    """
    import pyarrow

    try:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise ZooError(f"{path}: not a score table ({what}); {_again(path)}") from error


def _again(path: Path) -> str:
    artifact = path.parent.parent
    removed = f"`zoo rm {artifact.name}` removes it, then " if (artifact / MANIFEST).exists() else ""
    return f"{removed}score the member again"


def write_card(card: ScoreCard, path: Path) -> None:
    """Write scores.json, whole or not at all."""
    write_atomic(path, card.model_dump_json(indent=1))


def read_card(path: Path) -> ScoreCard:
    """Read scores.json."""
    try:
        return ScoreCard.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise ZooError(f"{path}: not a score card ({what}); {_again(path)}") from error


def write_submission(ids: Sequence[str], p: np.ndarray, path: Path, form: Form = COMPETITION) -> None:
    """Write the columns of a form as CSV, whole or not at all; p of shape (rows, 3).

    Bad probabilities raise ZooError.
    """
    validate_scores(score_table(ids, p), path)
    write_atomic(path, form.frame(ids, p, without_ties(p)).to_csv(index=False, lineterminator="\n"))


def read_submission(path: Path) -> pd.DataFrame:
    """A submission as id (str), p_a, p_b, p_tie (float64)."""
    check_ordinary(path, mend="give the file that `ensemble predict` wrote")
    try:
        frame = pd.read_csv(path, dtype={"id": "str"}, keep_default_na=False, float_precision="round_trip")
        frame = frame[list(SUBMISSION_COLUMNS)].set_axis(["id", *PROBABILITIES], axis=1)
        for name in PROBABILITIES:  # an empty cell is no number, and so is a word
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    except (OSError, ValueError, KeyError) as error:
        columns = ", ".join(SUBMISSION_COLUMNS)
        raise ZooError(f"{path}: not a submission ({str(error).splitlines()[0]}); it needs the columns {columns}") from error
    bad = frame["id"][~np.isfinite(probabilities(frame)).all(axis=1)].tolist()
    if bad:
        named = ", ".join(bad[:5])
        raise ZooError(f"{path}: {amount(len(bad), 'row')} without three numbers, ids {named}; predict again, or mend the file")
    validate_scores(score_table(frame["id"].tolist(), probabilities(frame)), path)
    return frame


def variant_metrics(manifest: Manifest, slug: str) -> dict[str, float]:
    """A variant's metrics without its name: `ab-512:val/log_loss` -> `val/log_loss`."""
    return {name.removeprefix(f"{slug}:"): v for name, v in manifest.metrics.items() if name.startswith(f"{slug}:")}
