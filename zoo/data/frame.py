"""Battles as a DataFrame from which the same battles are read again."""

from __future__ import annotations

import pandas as pd

from zoo.data.battles import Battles
from zoo.data.columns import TEXT_COLUMNS, WINNER, WINNER_COLUMNS

WINNERS_OF_TWO = {0: "model_a", 1: "model_b"}


def frame_of(battles: Battles) -> pd.DataFrame:
    """The usable rows: id, texts as lists of turns, the winner, and what was kept beside them.

    Winners are three columns of 0 and 1; where no battle can be a tie, one that names the model.
    Numbers that were kept as text are numbers again where all of a column are.
    """
    frame = battles.frame[["id", *TEXT_COLUMNS]].copy()
    label = battles.frame["label"]
    if battles.labelled and battles.can_tie:
        for place, name in enumerate(WINNER_COLUMNS):
            frame[name] = (label == place).astype("int8")
    elif battles.labelled:
        frame[WINNER] = label.map(WINNERS_OF_TWO)
    kept = battles.kept.reindex(frame["id"])
    for name in kept.columns:
        texts = pd.Series(kept[name].to_numpy(), index=frame.index, dtype=object).replace("", None)
        numbers = pd.to_numeric(texts, errors="coerce")
        frame[name] = numbers if numbers.notna().equals(texts.notna()) and numbers.notna().any() else texts
    return frame.reset_index(drop=True)
