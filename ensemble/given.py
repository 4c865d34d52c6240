"""Tables that the user brings for members of a plan: `--scores NAME=FILE`, instead of running the member."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ensemble.combine import Board
from ensemble.plan import Plan
from zoo.errors import ZooError
from zoo.imports import read_table


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
        frame = read_table(path)
        known = frame[frame["id"].isin(board.ids)]
        if known.empty:
            raise ZooError(f"{path}: none of its {len(frame):,} ids is in the battles; give the table for the file to predict")
        board.add(name, known)
        lacking = len(board.ids) - len(known)
        sources[name] = str(path) + (f", which lacks {lacking:,} rows" if lacking else "")
    return sources
