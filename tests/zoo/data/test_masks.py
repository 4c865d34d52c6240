"""Masks: prompts of a test file and their near-copies never come back, and the nearest that do are told."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.logs import question
from zoo.data.masks import EXACT, LEAST_SIMILAR, NEAR, Neighbours, asked_in, nearest, why_masked

TEXTS = st.lists(st.text("abc ", min_size=1, max_size=14), max_size=8)


def test_exact_and_near_copies_in_any_turn_are_masked() -> None:
    long = question(1) + " " + question(2)
    never = {"what is new in the north?", long}
    exact = [["What is  NEW in the north?"], ["Hello", "what is new in the north?"]]
    prompts = [*exact, [long + " now"], [question(9)], ["ok", None]]
    assert why_masked(prompts, never) == [EXACT, EXACT, NEAR, "", ""]
    assert why_masked(prompts, set()) == [""] * 5


def runs(text: str) -> set[str]:
    padded = text.ljust(5, "\0")
    return {padded[start : start + 5] for start in range(len(padded) - 4)}


@given(TEXTS, TEXTS)
def test_the_nearest_are_those_of_comparing_each_with_each(ours: list[str], theirs: list[str]) -> None:
    expected = []
    for a, b in product(sorted(set(ours)), sorted(set(theirs))):
        similarity = len(runs(a) & runs(b)) / len(runs(a) | runs(b))
        if similarity >= LEAST_SIMILAR:
            expected.append(Neighbours(similarity, a, b))
    expected.sort(key=lambda pair: (-pair.similarity, pair.kept, pair.never))
    assert nearest(ours, theirs, count=99) == expected


@pytest.mark.parametrize("header", ["id,prompt,response_a,response_b", "id,prompt"])
def test_every_turn_of_a_test_file_is_known(tmp_path: Path, header: str) -> None:
    path = tmp_path / "test.csv"
    cells = ',"[""x""]","[""y""]"' if "response_a" in header else ""
    path.write_text(f'{header}\n1,"[""First"",""Second""]"{cells}\n')
    assert asked_in([path]) == {"first", "second", "first second"}
