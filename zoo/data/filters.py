"""Filters of pairs, each for a reason whose price is measured (`zoo data label --drop`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from zoo.contracts import Drop
from zoo.data.keys import ordered_keys, turns_key
from zoo.data.languages import UNDETERMINED, in_another, language_of_turns
from zoo.data.near import near_groups
from zoo.data.turns import Turns

COIN_FLIP = (
    0.03  # lead of the likeliest label; the second place of WSDM Cup left out pairs whose two probabilities differ by less
)
CUT_LEAST_CHARACTERS, CUT_LINE = 400, 40  # of an answer, and of its last line, which has to be prose
_FENCE, _UNFINISHED = "```", (",", "-", "(", "/")


def which(drop: Drop, frame: pd.DataFrame, shares: np.ndarray, languages: Sequence[str] = ()) -> np.ndarray:
    """The rows of a battles frame that a filter would leave out: bool, (rows,).

    `shares` (rows, 3): their labels; `languages`: those that `language` leaves.
    """
    if drop == "language":
        return np.array([in_another(language_of_turns(turns), languages) for turns in frame["prompt"]], dtype=bool)
    if drop == "other-language":
        texts = zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True)
        return np.array([_in_other_language(*map(language_of_turns, row)) for row in texts], dtype=bool)
    if drop == "coin-flip":
        ordered = np.sort(shares, axis=1)
        close: np.ndarray = ordered[:, 2] - ordered[:, 1] <= COIN_FLIP
        return close
    if drop == "near-duplicate":
        return _repeated(frame)
    answers = zip(frame["response_a"], frame["response_b"], strict=True)
    if drop == "identical":
        return np.array([turns_key(a) == turns_key(b) for a, b in answers], dtype=bool)
    test = {"empty": _is_empty, "cut": looks_cut}[drop]
    return np.array([test(a) or test(b) for a, b in answers], dtype=bool)


def _is_empty(turns: Turns) -> bool:
    """Whether an answer has a turn without text, or no turn."""
    return not turns or not all(turn and turn.strip() for turn in turns)


def _in_other_language(prompt: str, a: str, b: str) -> bool:
    """Whether one answer's language is neither the prompt's nor the other answer's.

    Where both answers are in the same one, a translation may have been asked for. Nothing is said of what is undetermined.
    """
    return UNDETERMINED not in (prompt, a, b) and a != b and (prompt != a or prompt != b)


def looks_cut(turns: Turns) -> bool:
    """Whether an answer's last turn ends as if a token limit had cut it.

    Within a code block; or, of a long one, within a line of prose: on a letter, a digit or a mark that something follows.
    """
    text = (turns[-1] or "").rstrip() if turns else ""
    if text.count(_FENCE) % 2:
        return True
    last = text.rsplit("\n", 1)[-1].lstrip()
    is_prose = len(text) >= CUT_LEAST_CHARACTERS and len(last) >= CUT_LINE and not last.startswith(("|", "#", "http"))
    return is_prose and (text[-1].isalnum() or text.endswith(_UNFINISHED))


def _repeated(frame: pd.DataFrame) -> np.ndarray:
    """Rows whose prompt and both answers are near-copies of those of a row before them, whichever is A."""
    keys = ordered_keys(frame)
    prompts = near_groups([prompt for prompt, _, _ in keys]).tolist()
    answers = near_groups([answer for _, *both in keys for answer in both]).reshape(-1, 2).tolist()
    seen: set[tuple[int, frozenset[int]]] = set()
    repeated = np.zeros(len(keys), dtype=bool)
    for place, (prompt, both) in enumerate(zip(prompts, answers, strict=True)):
        repeated[place] = (prompt, frozenset(both)) in seen
        seen.add((prompt, frozenset(both)))
    return repeated


def reasons(
    drops: Sequence[Drop], frame: pd.DataFrame, shares: np.ndarray, languages: Sequence[str] = ()
) -> dict[Drop, np.ndarray]:
    """Which rows each filter would leave out, by itself."""
    return {drop: which(drop, frame, shares, languages) for drop in drops}
