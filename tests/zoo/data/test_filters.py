"""Filters of pairs: what each leaves out."""

import numpy as np
import pandas as pd
import pytest

from tests.helpers.logs import question
from zoo.data.filters import looks_cut, which

PROSE = "This sentence is long enough to be prose, and there are many of it. " * 8


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame([[[cell] for cell in row] for row in rows], columns=["prompt", "response_a", "response_b"])


def test_each_filter_takes_its_own() -> None:
    long, longer = f"{question(1)} {question(2)}", f"{question(3)} {question(4)} {question(5)}"
    rows = frame(
        ("p", "Yes", "yes "),
        ("p", "", "b"),
        (long, longer, "other"),
        (long + " now", "Other", longer + " then"),
        (question(8), "a", PROSE + "and then it ended without a"),
    )
    shares = np.array([[0.34, 0.33, 0.33], [0.6, 0.2, 0.2], [0.4, 0.38, 0.22], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
    found = {name: np.flatnonzero(which(name, rows, shares)).tolist() for name in NAMES}
    assert found == {"identical": [0], "empty": [1], "near-duplicate": [3], "cut": [4], "coin-flip": [0, 2]}


NAMES = ("identical", "empty", "near-duplicate", "cut", "coin-flip")
ENGLISH, GERMAN, FRENCH = (
    "This is an answer in plain English.",
    "Das ist eine Antwort auf Deutsch.",
    "Ceci est une réponse en français.",
)


@pytest.mark.parametrize(
    ("prompt", "a", "b", "lost"),
    [
        (ENGLISH, ENGLISH, GERMAN, True),
        (GERMAN, FRENCH, GERMAN, True),
        (ENGLISH, ENGLISH, ENGLISH, False),
        (ENGLISH, FRENCH, FRENCH, False),  # as if a translation was asked for
        (ENGLISH, FRENCH, GERMAN, True),
        (ENGLISH, "42", GERMAN, False),
        ("2 + 2?", ENGLISH, GERMAN, False),
    ],
)
def test_an_answer_in_a_language_of_neither_prompt_nor_other_answer(prompt: str, a: str, b: str, lost: bool) -> None:
    rows = frame((prompt, a, b), (prompt, b, a))
    assert which("other-language", rows, np.ones((2, 3)) / 3).tolist() == [lost, lost]


def test_prompts_in_languages_that_are_not_wanted() -> None:
    rows = frame((ENGLISH, "a", "b"), (GERMAN, "a", "b"), ("2 + 2?", "a", "b"), (FRENCH, "a", "b"))
    assert which("language", rows, np.ones((4, 3)) / 3, ["en", "fr"]).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (PROSE, False),
        (PROSE + "and then", True),
        (PROSE + "first,", True),
        ("Short and unfinished", False),
        ("```python\nprint(1)", True),
        ("```python\nprint(1)\n```", False),
        (PROSE + "\n| a | table | of several columns in a row | x", False),
        (PROSE + "\n- Rome", False),
        ("", False),
    ],
)
def test_what_looks_cut(text: str, cut: bool) -> None:
    assert looks_cut([text]) == cut
