"""What weights from elsewhere have seen: their rows, near-copies, and the folds that each of several held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoo.contracts import Held, Selection
from zoo.data.battles import read_battles
from zoo.data.learned import FILE, Learned, carry_learned, learned_of, read_learned, seen, select_held_out, write_learned
from zoo.data.splits import assign_folds, select_rows
from zoo.errors import ZooError


def battles_file(path: Path, prompts: list[str], **columns: list[object]) -> Path:
    rows = len(prompts)
    frame = pd.DataFrame({"id": [str(i) for i in range(rows)], "prompt": prompts, "response_a": "x", "response_b": "y"})
    won = {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
    frame.assign(**won, **columns).to_csv(path, index=False)
    return path


QUESTION = "What is the shortest way to read a file of many lines in Python?"


def test_rows_and_near_copies_of_their_prompts_are_seen(tmp_path: Path) -> None:
    prompts = [QUESTION, "Name three rivers of Europe, please.", f"You are a helpful assistant. {QUESTION}", "Bake me a cake."]
    theirs = learned_of(read_battles(battles_file(tmp_path / "train.csv", [QUESTION.upper()])), None, 1)
    frame = read_battles(battles_file(tmp_path / "all.csv", prompts)).frame
    assert seen(frame, theirs, "near-prompts-1").tolist() == [True, False, True, False]
    assert not seen(frame, Learned(known=True), "near-prompts-1").any()


def test_ids_count_where_the_file_has_no_prompts_and_only_there(tmp_path: Path) -> None:
    frame = read_battles(battles_file(tmp_path / "all.csv", ["One two three four.", "Five six seven eight."])).frame
    assert seen(frame, Learned(True, ("1",), ((),), (True,)), None).tolist() == [False, True]
    other = Learned(True, ("1",), (("Something else altogether, of another data set.",),), (True,))
    assert not seen(frame, other, None).any(), "numbers from 0 on are in every file"


def test_what_is_written_is_read_and_carried_to_what_is_made_of_it(tmp_path: Path) -> None:
    first = Learned(True, ("1", "2"), (("a", "b"), ("c",)), (True, False))
    second = Learned(True, ("1", "2"), (("a", "b"), ("c",)), (False, True))
    for name, one in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        write_learned(one, tmp_path / name)
    assert read_learned(tmp_path / "first") == first and read_learned(tmp_path) is None
    for name, sources in (("one", ["first"]), ("both", ["first", "second"]), ("none", [])):
        (tmp_path / name).mkdir()
        carry_learned([tmp_path / source for source in sources], tmp_path / name)
    assert read_learned(tmp_path / "one") == first
    assert read_learned(tmp_path / "both") == Learned(True, ("1", "2"), (("a", "b"), ("c",)), (True, True)), "all have seen all"
    assert not (tmp_path / "none" / FILE).exists()
    write_learned(Learned(known=False), tmp_path / "second")
    (tmp_path / "doubt").mkdir()
    carry_learned([tmp_path / "first", tmp_path / "second"], tmp_path / "doubt")
    assert read_learned(tmp_path / "doubt").known is False  # type: ignore[union-attr]


def test_adapters_by_fold_score_what_each_held_out_and_rows_that_none_has(tmp_path: Path) -> None:
    """Together every row once, none by an adapter that learned from it; their folds need not be ours."""
    words = ["river", "cake", "planet", "verb", "prime", "violin", "market", "glacier", "poem", "engine", "tax", "yeast"]
    prompts = [f"Tell me what a {word} is, and where one finds a {word}." for word in words]
    path = battles_file(tmp_path / "train.csv", prompts[:9], fold=[i % 3 for i in range(9)])
    train, whole = read_battles(path, keep=("fold",)), read_battles(battles_file(tmp_path / "all.csv", prompts))
    taken: list[str] = []
    for fold in range(3):
        learned, held = learned_of(train, fold, 3), Held(n_folds=3, fold=fold)
        frame = select_held_out(whole, learned, Selection(), held)
        assert set(frame["id"]) & set(train.frame["id"]) == {str(i) for i in range(9) if i % 3 == fold}
        assert not seen(whole.frame, learned, None)[whole.frame["id"].isin(frame["id"])].any()
        taken += frame["id"].tolist()
    assert sorted(taken, key=int) == [str(i) for i in range(12)]
    ours = assign_folds(whole.frame, 3)[9:]
    assert [taken.index(str(9 + i)) >= 0 for i in range(len(ours))]


def test_without_folds_of_their_own_rows_go_by_ours(tmp_path: Path) -> None:
    whole = read_battles(battles_file(tmp_path / "all.csv", [f"Question {i} of a kind, number {i * 7919}?" for i in range(40)]))
    held = Held(n_folds=4, fold=1)
    for learned in (None, Learned(known=True), Learned(known=False)):
        found = select_held_out(whole, learned, Selection(max_rows=5), held)
        assert found["id"].tolist() == select_rows(whole, Selection(max_rows=5), held)["id"].tolist()


@pytest.mark.parametrize("fold", [["0", "1", "3"], ["0", "", "1"], ["0", "one", "1"]])
def test_a_column_that_holds_other_than_folds_is_refused(tmp_path: Path, fold: list[str]) -> None:
    train = read_battles(battles_file(tmp_path / "train.csv", ["A?", "B?", "C?"], fold=fold), keep=("fold",))
    with pytest.raises(ZooError, match=r"row \d has the fold .*; there are adapters of 0 to 1"):
        learned_of(train, 0, 2)
    with pytest.raises(ZooError, match="has no column `fold`"):
        learned_of(read_battles(train.path), 0, 2)
    assert np.all(learned_of(train, None, 1).learned), "one adapter learned from every row"
