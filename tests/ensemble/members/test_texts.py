"""What is kept of texts: scripts, and a filter that knows rows again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ensemble.members.texts import bloom, is_known, row_digests, script_of


@pytest.mark.parametrize(
    ("prompt", "script"),
    [
        ("why", "latin"),
        ("pourquoi ça été", "latin"),
        ("почему not", "cyrillic"),
        ("为什么", "cjk"),
        ("なぜ", "hiragana"),
        ("1 + 1", "none"),
        (None, "none"),
    ],
)
def test_a_prompt_is_of_the_script_that_most_of_its_letters_are_of(prompt, script):
    assert script_of([prompt]) == script


def test_a_filter_knows_all_its_rows_and_hardly_any_other():
    rng = np.random.default_rng(0)
    for rows in (1, 50, 4_000):
        ours = rng.integers(0, 2**64, rows, dtype=np.uint64)
        known = bloom(ours)
        assert is_known(known, ours).all()
    strangers = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    assert is_known(known, strangers).mean() == pytest.approx(0.0005, abs=0.0003)


def test_a_row_is_the_same_whichever_answer_is_a_and_whatever_its_id():
    rows = pd.DataFrame(
        {
            "id": ["1", "2", "3"],
            "prompt": [["p"]] * 3,
            "response_a": [["x"], ["y"], ["x", "y"]],
            "response_b": [["y"], ["x"], [None]],
        }
    )
    one, exchanged, other = row_digests(rows)
    assert one == exchanged != other
