"""Folds by a rule: near-copies of a prompt share a fold, and nothing that is added moves a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.contracts import Held, Selection
from zoo.data.battles import Battles, read_battles
from zoo.data.splits import (
    assign_folds,
    fold_of,
    folds_of,
    group_hashes,
    prompt_hash,
    rule_that_serves,
    select_rows,
    select_training,
)
from zoo.data.stats import battle_stats

NEAR = "near-prompts-1"
QUESTION = "Why is the sky blue at noon, and why is it red in the evening when the sun goes down? Question {}."
ALONE = "What is {} times {}, said in words that a child would use?"


def frame_of(prompts: list[str]) -> pd.DataFrame:
    turns = [[prompt, "and then?"] for prompt in prompts]
    rows = [(f"r{i}", turn, ["a"], ["b"], i % 3) for i, turn in enumerate(turns)]
    return pd.DataFrame(rows, columns=["id", "prompt", "response_a", "response_b", "label"])


def battles_of(prompts: list[str], labels: list[int] | None = None) -> Battles:
    frame = frame_of(prompts)
    if labels is not None:
        frame["label"] = labels
    return Battles(Path("battles.csv"), frame, tuple(frame["id"]), (), (), True, (), pd.DataFrame())


@pytest.mark.parametrize("n_folds", [2, 5])
def test_near_copies_share_the_fold_of_the_smallest_hash_among_them(n_folds: int) -> None:
    family = [QUESTION.format(i) for i in range(12)]
    folds = assign_folds(frame_of([*family, "Alone."]), n_folds, NEAR)
    smallest = min(family, key=lambda prompt: prompt_hash(prompt.lower()))
    assert set(folds[:12]) == {fold_of([smallest], n_folds)} and folds[12] == fold_of(["Alone."], n_folds)
    assert len(set(assign_folds(frame_of(family), n_folds))) > 1  # which hashes alone would tear apart


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([form.format(i) for form in (QUESTION, "short {}") for i in range(9)]), min_size=1), st.randoms()
)
def test_order_and_repetition_move_no_row(prompts: list[str], rng: Any) -> None:
    frame = frame_of(prompts)
    folds = dict(zip(frame["id"], assign_folds(frame, 7, NEAR), strict=True))
    shuffled = frame.sample(frac=1, random_state=rng.randrange(2**31))
    assert dict(zip(shuffled["id"], assign_folds(shuffled, 7, NEAR), strict=True)) == folds
    twice = pd.concat([frame, frame.assign(id=frame["id"] + "-again")], ignore_index=True)
    assert assign_folds(twice, 7, NEAR).tolist() == [*folds.values()] * 2


def test_without_a_rule_each_prompt_goes_by_its_own_hash_as_it_always_did() -> None:
    frame = frame_of([QUESTION.format(i) for i in range(30)])
    assert assign_folds(frame, 5).tolist() == [fold_of(turns, 5) for turns in frame["prompt"]]
    assert fold_of(["What is the capital of France?"], 1000) == 24


def test_every_stage_cuts_the_file_alike() -> None:
    """Training reads labelled rows, scoring all: groups are those of the whole file in both."""
    prompts = [QUESTION.format(i) for i in range(8)] + [ALONE.format(i, j) for i in range(6) for j in ("two", "nine")]
    rng = np.random.default_rng(0)
    battles = battles_of(prompts, rng.integers(-1, 3, len(prompts)).tolist())
    seen = set()
    for fold in range(3):
        held = Held(n_folds=3, fold=fold, rule=NEAR)
        train, held_out = select_training(battles, held)
        scored = select_rows(battles, Selection(), held)
        assert set(held_out["id"]) <= set(scored["id"]) and not set(train["id"]) & set(scored["id"])
        assert set(folds_of(battles, scored["id"], 3, NEAR)) <= {fold}
        seen |= set(scored["id"])
    assert seen == set(battles.frame["id"])
    hashes = group_hashes(battles.frame, NEAR)
    assert len(set(hashes[:8])) == 1 and hashes.dtype == np.uint64


def test_statistics_name_the_largest_group_of_near_copies(sample_csv: Path) -> None:
    battles = battles_of([*(QUESTION.format(i) for i in range(4)), QUESTION.format(0), "Alone.", "Another one."])
    expected = {"groups": 1, "largest_prompts": 4, "largest_rows": 5, "largest_id": "r0"}
    assert battle_stats(battles)["near_copies"] == expected
    assert battle_stats(battles_of(["Alone.", "Alone."]))["near_copies"] == {}
    assert battle_stats(read_battles(sample_csv))["near_copies"]["groups"] > 0


# --- the rule that commands take ---------------------------------------------------------------------------------------------


def made_of(sentences: Sequence[str], rows: int) -> pd.DataFrame:
    """Battles whose prompts are a few sentences with a number behind them; the label goes by the sentence."""
    prompts = [[f"{sentences[i % len(sentences)]} ({i})"] for i in range(rows)]
    return pd.DataFrame({"id": [str(i) for i in range(rows)], "prompt": prompts, "label": [i % 3 for i in range(rows)]})


def test_near_copies_share_a_fold_where_that_leaves_every_label_to_learn_from() -> None:
    words = [f"{a} {b} the {c}?" for a in ("how does", "why is") for b in ("rain reach", "iron meet") for c in ("sea", "moon")]
    many = made_of([f"{word} {place * 7919}" for place, word in enumerate(words * 6)], 60)
    assert rule_that_serves(many, 5) == "near-prompts-1"
    few = made_of(["How do I boil an egg, please?", "Name a river in the north of Asia.", "What is 7 times 6, exactly?"], 30)
    assert rule_that_serves(few, 5) is None
    folds = assign_folds(few, 5)
    assert all(set(few["label"][folds != fold]) == {0, 1, 2} for fold in range(5))


def test_what_no_rule_can_deal_keeps_near_copies_together() -> None:
    one = made_of(["How do I boil an egg, please?"], 3)
    assert rule_that_serves(one, 5) == "near-prompts-1"
    assert rule_that_serves(one.assign(label=-1), 5) == "near-prompts-1", "no labels, nothing to learn"
