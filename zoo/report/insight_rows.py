"""Scored rows with their texts, cut into slices: language, lengths, turns, labels, code.

A slice of fewer than 20 rows is not told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from zoo.data.battles import text_lengths
from zoo.data.columns import TEXT_COLUMNS
from zoo.data.languages import UNDETERMINED, language_of_turns
from zoo.data.turns import Turns
from zoo.report.figures import outcomes
from zoo.scores.metrics import log_loss_rows
from zoo.scores.parts import Part
from zoo.scores.slices import FEWEST_ROWS

# Kinds of slices.
LANGUAGE, PROMPT, ANSWERS, GAP, TURNS, LABEL, CODE, CUT = (
    "language of the prompt",
    "length of the prompt",
    "length of both answers",
    "lengths of the answers",
    "turns",
    "what people said",
    "code blocks",
    "cut to fit the model",
)
MOST_LANGUAGES = 8  # by rows; the others are one slice
QUARTERS = (0.25, 0.5, 0.75)
TWICE = 2.0
LONGER_WORDS = "one at least twice as long"
_FENCE = re.compile(r"```")


@dataclass(frozen=True)
class InsightRows:
    """Labelled rows with what was predicted of them.

    `frame` has id, prompt, response_a, response_b and label; `p` (rows, 3); `groups` (rows,), the same number for the same
    prompt; `cut`: bool (rows,), which ones a model read only a part of. `ties`: whether a battle can be a tie; where not,
    every p_tie is 0.
    """

    frame: pd.DataFrame
    p: np.ndarray
    groups: np.ndarray
    cut: np.ndarray
    ties: bool = True

    @cached_property
    def y(self) -> np.ndarray:
        """Labels 0, 1, 2: (rows,)."""
        labels: np.ndarray = self.frame["label"].to_numpy(dtype=np.int64)
        return labels

    @cached_property
    def losses(self) -> np.ndarray:
        """Log loss of each row in nats: (rows,)."""
        return log_loss_rows(self.p, self.y)

    @cached_property
    def languages(self) -> list[str]:
        """Codes of the prompts' languages; each prompt is looked at once."""
        known = {key: language_of_turns(turns) for key, turns in zip(self._prompts, self.frame["prompt"], strict=True)}
        return [known[key] for key in self._prompts]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of prompt, answer A and answer B: (rows, 3)."""
        return text_lengths(self.frame)

    @cached_property
    def turns(self) -> np.ndarray:
        """Turns of the prompts: (rows,)."""
        return np.array([len(turns) for turns in self.frame["prompt"]], dtype=np.int64)

    @cached_property
    def _prompts(self) -> list[tuple[str | None, ...]]:
        return [tuple(turns) for turns in self.frame["prompt"]]

    @cached_property
    def parts(self) -> list[Part]:
        """The slices with enough rows, kind by kind. Those of one kind share no row."""
        found = [Part(kind, name, inside) for kind, slices in KINDS.items() for name, inside in slices(self)]
        return [part for part in found if FEWEST_ROWS <= part.inside.sum() < len(self.y)]


def _by_language(rows: InsightRows) -> Iterator[tuple[str, np.ndarray]]:
    codes = np.array(rows.languages, dtype=object)
    counts = Counter(rows.languages)
    common = [code for code, count in counts.most_common() if code != UNDETERMINED and count >= FEWEST_ROWS][:MOST_LANGUAGES]
    for code in common:
        yield code, codes == code
    yield "other languages", ~np.isin(codes, [*common, UNDETERMINED])
    yield "not told (code, formulas, names)", codes == UNDETERMINED


def quarters(values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Slices of about a quarter of the rows each, by lengths; fewer where many are the same."""
    edges = np.unique(np.quantile(values, QUARTERS, method="lower"))
    place = np.searchsorted(edges, values, side="left")
    for number in range(len(edges) + 1):
        inside = place == number
        if not inside.any():
            continue
        low, high = values[inside].min(), values[inside].max()
        if number == len(edges):
            yield f"{low:,.0f} characters and more", inside
        else:
            yield f"up to {high:,.0f} characters" if number == 0 else f"{low:,.0f} to {high:,.0f} characters", inside


def _by_gap(rows: InsightRows) -> Iterator[tuple[str, np.ndarray]]:
    shorter, longer = np.sort(rows.lengths[:, 1:], axis=1).T
    apart = longer >= TWICE * np.maximum(shorter, 1)
    yield LONGER_WORDS, apart
    yield "nearer to each other", ~apart


def _by_turns(rows: InsightRows) -> Iterator[tuple[str, np.ndarray]]:
    yield "one turn", rows.turns == 1
    yield "two turns", rows.turns == 2
    yield "three turns and more", rows.turns > 2


def _by_label(rows: InsightRows) -> Iterator[tuple[str, np.ndarray]]:
    for label, name in enumerate(outcomes(ties=rows.ties)):
        yield name, rows.y == label


def _by_code(rows: InsightRows) -> Iterator[tuple[str, np.ndarray]]:
    prompt, *answers = (np.array([_has_code(turns) for turns in rows.frame[name]], dtype=bool) for name in TEXT_COLUMNS)
    answered = answers[0] | answers[1]
    yield "in the prompt", prompt
    yield "in an answer alone", answered & ~prompt
    yield "none", ~prompt & ~answered


def _has_code(turns: Turns) -> bool:
    """Whether a fenced block of code is in the turns."""
    return any(turn is not None and _FENCE.search(turn) for turn in turns)


def _by_cut(rows: InsightRows) -> Iterator[tuple[str, np.ndarray]]:
    yield "cut", rows.cut
    yield "read whole", ~rows.cut


KINDS: dict[str, Callable[[InsightRows], Iterator[tuple[str, np.ndarray]]]] = {
    LANGUAGE: _by_language,
    PROMPT: lambda rows: quarters(rows.lengths[:, 0]),
    ANSWERS: lambda rows: quarters(rows.lengths[:, 1:].sum(axis=1)),
    GAP: _by_gap,
    TURNS: _by_turns,
    LABEL: _by_label,
    CODE: _by_code,
    CUT: _by_cut,
}


def extremes(losses: np.ndarray, count: int) -> tuple[Sequence[int], Sequence[int]]:
    """Places of the rows with the highest losses, worst first, and the lowest, best first."""
    order = np.argsort(-losses, kind="stable")
    return order[:count].tolist(), order[::-1][:count].tolist()
