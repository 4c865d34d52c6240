"""Tables that the user brings for members of a plan: `--scores NAME=FILE`, instead of running the member."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ensemble.combine import Board
from ensemble.plan import Plan
from zoo.errors import ZooError
from zoo.scores import COLUMNS, PROBABILITIES, SUBMISSION_COLUMNS, probabilities, read_submission, score_table, validate_scores


def check_given(plan: Plan, scores: Mapping[str, Path]) -> None:
    """ZooError where a table is for no member of the plan, or a member can neither be run nor has a table."""
    names = [member.name for member in plan.members]
    for name in scores:
        if name not in names:
            raise ZooError(f"--scores {name}=...: the plan has no member {name!r}; it has {', '.join(names)}")
    for member in plan.members:
        if member.request is None and member.name not in scores:
            raise ZooError(
                f"{member.name}: imported, so it cannot be run on new battles; "
                f"give its table for them: --scores {member.name}=FILE"
            )


def add_given(board: Board, scores: Mapping[str, Path]) -> dict[str, str]:
    """Put the tables on the board; for each member where they came from, with how many rows they lack."""
    sources = {}
    for name, path in scores.items():
        frame = read_given(path)
        known = frame[frame["id"].isin(board.ids)]
        if known.empty:
            raise ZooError(f"{path}: none of its {len(frame):,} ids is in the battles; give the table for the file to predict")
        board.add(name, known)
        lacking = len(board.ids) - len(known)
        sources[name] = str(path) + (f", which lacks {lacking:,} rows" if lacking else "")
    return sources


def read_given(path: Path) -> pd.DataFrame:
    """A score table (.parquet or .csv) of at least id, p_a, p_b, p_tie, or under the competition's column names."""
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype={"id": "str"}, keep_default_na=False, float_precision="round_trip")
    except (OSError, ValueError) as error:
        raise ZooError(f"{path}: cannot be read as a score table ({str(error).splitlines()[0]})") from error
    if set(COLUMNS) <= set(frame.columns):
        frame = frame.astype({"id": "str"})
        validate_scores(frame, path)
        return frame
    if set(SUBMISSION_COLUMNS) <= set(frame.columns) and path.suffix != ".parquet":
        frame = read_submission(path)
    if not {"id", *PROBABILITIES} <= set(frame.columns):
        raise ZooError(f"{path}: needs the columns id, p_a, p_b, p_tie, or {', '.join(SUBMISSION_COLUMNS)}")
    try:
        table = score_table(frame["id"].astype(str).tolist(), probabilities(frame))
    except ValueError as error:
        raise ZooError(f"{path}: probabilities are not numbers ({str(error).splitlines()[0]})") from error
    validate_scores(table, path)
    return table
