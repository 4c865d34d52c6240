"""Log loss by slices: short and long, one turn and more, English and not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import OK, probabilities, without_ties

FEWEST_ROWS = 20  # a mean over fewer says more about chance than about the model
# The most frequent function words of English that are not words of its neighbours too (so no "in", "a", "me").
_FUNCTION_WORDS = """
the and of to is that for with this are you be as it not your can have from which will what how when they their would there
these about should but has was were been more other such also by or an if on at we my do does
"""
ENGLISH = frozenset(_FUNCTION_WORDS.split())
ENGLISH_SHARE = 0.12  # of the words: running English text has 0.3 to 0.5, other Latin-script languages below 0.05
WORD = re.compile(r"[^\W\d_]+")
READ_CHARACTERS = 4000  # of a battle, to tell its language


@dataclass(frozen=True)
class LabelledRows:
    """Scored rows with their labels: `p` (rows, 3), `y` (rows,) 0, 1, 2.

    `characters` and prompt `turns` (rows,); their `ids`.
    """

    p: np.ndarray
    y: np.ndarray
    characters: np.ndarray
    turns: np.ndarray
    english: np.ndarray
    ids: pd.Series


def labelled_rows(table: pd.DataFrame, battles: pd.DataFrame, *, ties: bool = True) -> LabelledRows:
    """The rows of a score table that were scored and that the battles label.

    Without `ties` the battles are of a kind that has none, and p_tie is taken out.
    """
    ok = table[table["status"] == OK]
    known = battles[battles["label"] >= 0].set_index("id")
    ok = ok[ok["id"].isin(known.index)]
    found = known.loc[ok["id"]]
    texts = [_texts(*turns) for turns in zip(found["prompt"], found["response_a"], found["response_b"], strict=True)]
    return LabelledRows(
        p=probabilities(ok) if ties else without_ties(probabilities(ok)),
        y=found["label"].to_numpy(dtype=np.int64),
        characters=np.array([len(text) for text in texts], dtype=np.int64),
        turns=np.array([len(turns) for turns in found["prompt"]], dtype=np.int64),
        english=np.array([is_english(text) for text in texts], dtype=bool),
        ids=ok["id"],
    )


def _texts(*fields: Sequence[str | None]) -> str:
    return "\n".join(turn or "" for turns in fields for turn in turns)


def is_english(text: str) -> bool:
    """Whether a text is mostly English, by the share of English function words among its words.

    Code between the sentences counts as words too, which is why the threshold is low. A text without words is not English.
    """
    words = WORD.findall(text[:READ_CHARACTERS].lower())
    return bool(words) and sum(word in ENGLISH for word in words) / len(words) >= ENGLISH_SHARE


def slice_metrics(rows: LabelledRows) -> dict[str, float]:
    """Mean log loss of each part that has at least 20 rows, as `val/log_loss_PART`."""
    if not len(rows.y):
        return {}
    losses = log_loss_rows(rows.p, rows.y)
    low, high = np.quantile(rows.characters, (0.25, 0.75))
    parts: Mapping[str, np.ndarray] = {
        "short": rows.characters <= low,
        "long": rows.characters >= high,
        "one_turn": rows.turns == 1,
        "more_turns": rows.turns > 1,
        "english": rows.english,
        "not_english": ~rows.english,
    }
    return {f"val/log_loss_{name}": float(losses[part].mean()) for name, part in parts.items() if part.sum() >= FEWEST_ROWS}
