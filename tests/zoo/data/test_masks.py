"""Masks: prompts of a test file and their near-copies never come back, and the nearest that do are told."""

from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.logs import question
from zoo.data.keys import near_copies, turns_key, visible
from zoo.data.masks import EXACT, LEAST_SIMILAR, NEAR, Neighbours, asked_in, nearest, why_masked
from zoo.data.splits import fold_of
from zoo.errors import ZooError

TEXTS = st.lists(st.text("abc ", min_size=1, max_size=14), max_size=8)


def test_exact_and_near_copies_in_any_turn_are_masked() -> None:
    long = question(1) + " " + question(2)
    never = {"what is new in the north?", long}
    exact = [["What is  NEW in the north?"], ["Hello", "what is new in the north?"]]
    prompts = [*exact, [long + " now"], [question(9)], ["ok", None]]
    assert why_masked(prompts, never) == [EXACT, EXACT, NEAR, "", ""]
    assert why_masked(prompts, set()) == [""] * 5


@pytest.mark.parametrize(
    "around",
    [
        "You are a helpful assistant. Always answer as well as you can. {}",
        "{} Think step by step!",
        "Be kind and helpful. {} Why?",
    ],
)
def test_a_question_with_something_put_around_it_is_masked_from_either_side(around: str) -> None:
    question, whole = "Is 17 times 23 even?", around.format("is 17 times 23 even?")
    assert why_masked([[whole], ["Hello", whole]], {question.casefold()}) == [NEAR, NEAR]
    assert why_masked([[question]], {whole.casefold()}) == [NEAR]
    assert why_masked([[around.format("is 171 times 23 odd?")], ["so is 17 times 23 evenly odd"]], {question.casefold()}) == [
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("short", "around"),
    [
        ("what is love?", "{} Think step by step."),
        ("what is love", "{}? Think step by step."),
        ("what is love?", "You are a helpful assistant. {}"),
        ("write a poem", "Be concise: {}"),
        ("什么是爱?", "你是一个乐于助人的助手。{}"),
    ],
)
def test_a_short_question_with_something_put_around_it_is_masked_from_either_side(short: str, around: str) -> None:
    whole = around.format(short)
    assert why_masked([[whole], ["Hello", whole]], {short}) == [NEAR, NEAR]
    assert why_masked([[short]], {whole.casefold()}) == [NEAR]


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("write a poem", "write a poem about the rain in spring"),
        ("what is love?", "tell me all that you know of this: what is loveless?"),
        ("hi.", "hi. can you help me to write a letter?"),  # below SHORT_WITHIN: in many by chance
        ("write a poem", "can you please write a poem"),
    ],
)
def test_a_short_text_that_is_no_sentence_of_its_own_masks_nothing(short: str, whole: str) -> None:
    assert why_masked([[whole]], {short}) == [""]


INVISIBLE = st.sampled_from("\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u3164\ufe0f\U000e0020\x00\x7f")


@given(st.lists(INVISIBLE, min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_what_nobody_sees_hides_no_copy(marks: list[str], random: Random) -> None:
    whole = list("Is 17 times 23 an even number, or odd?")
    for mark in marks:
        whole.insert(random.randint(0, len(whole)), mark)
    hidden = "".join(whole)
    assert why_masked([[hidden]], {"is 17 times 23 an even number, or odd?"}) == [EXACT]
    assert turns_key([hidden]) == turns_key(["is 17 times 23 an even number, or odd?"])


@given(st.text(st.characters(exclude_categories=["Cf", "Cc", "Cs", "Cn", "Mn", "Lo"]), max_size=40))
def test_what_is_seen_stays(text: str) -> None:
    assert visible(text) == text


def test_folds_do_not_move() -> None:
    """The rule near-prompts-1 deals files that are trained on; only masks know of invisible characters."""
    assert fold_of(["a\u200bb"], 2**61 - 1) != fold_of(["ab"], 2**61 - 1)


def test_a_very_long_prompt_is_looked_through_in_no_time() -> None:
    long = "word " * 300_000 + "is 17 times 23 even?"
    assert near_copies([long], {"is 17 times 23 even?"}) == {long}


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no-id.csv", 'prompt\n"[""First"",""Second""]"\n'),
        ("two-of-one-id.csv", 'id,prompt\n1,"[""First""]"\n1,"[""Other""]"\n1,"[""Second""]"\n'),
        ("prompts.jsonl", '{"prompt": "First"}\n{"prompt": "Second"}\n'),
        (
            "log.jsonl",
            '{"conversation": [{"role": "user", "content": "First"}]}\n{"messages": [{"role": "user", "content": "Second"}]}\n',
        ),
        ("broken.csv", 'id,prompt\n1,"[""First""]"\n2,"[""Second""]"\n3,"[""Third"\n'),
    ],
)
def test_a_file_of_prompts_masks_them_whatever_else_it_lacks(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert {"first", "second"} <= asked_in([tmp_path / name])


@pytest.mark.parametrize(
    "text", ["id,winner_model_a,winner_model_b,winner_tie\n1,1,0,0\n", '{"id": 1, "question": "First"}\n' * 3]
)
def test_a_file_without_a_prompt_that_can_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids").write_text(text)
    with pytest.raises(ZooError, match=r"ids: no prompt can be read, so nothing would be kept out"):
        asked_in([tmp_path / "ids"])
