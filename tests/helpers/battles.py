"""Battles as a frame, made up so that what is counted in them is known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from zoo.data.battles import Battles
from zoo.data.columns import COMPETITION


def battle_frame(rows: int) -> pd.DataFrame:
    """Battles whose length grows with the row, every third of two turns, every fourth not English, the last unlabelled."""
    turns = [["and the " * (i + 1)] if i % 4 else ["und die " * (i + 1)] for i in range(rows)]
    turns = [turn * (2 if i % 3 == 0 else 1) for i, turn in enumerate(turns)]
    label = [i % 3 for i in range(rows - 1)] + [-1]
    ids = [f"r{i}" for i in range(rows)]
    return pd.DataFrame(
        {"id": ids, "prompt": turns, "response_a": [["x"]] * rows, "response_b": [[None]] * rows, "label": label}
    )


def battles_of(frame: pd.DataFrame, kind: str = COMPETITION) -> Battles:
    """Battles as they would be read from a file of that kind of columns."""
    return Battles(Path("battles.csv"), frame, tuple(frame["id"]), (), (), True, (), pd.DataFrame(), kind=kind)
