"""Kinds of columns: which cell is what, and what is plain text, told over a whole column."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.battles_files import Row, arena, as_csv, as_jsonl, as_parquet, competition, named, write
from zoo.data.battles import Battles, dataset_digest, labels_digest, read_battles
from zoo.data.columns import ids_of, label_of
from zoo.data.turns import are_plain, conversation_of, turns_of
from zoo.errors import ZooError

PLAIN: list[Row] = [(str(i), [f"why {i}?"], [f"since {i}"], [f"never {i}"], i % 2) for i in range(30)]
TIED: list[Row] = [(*row[:4], i % 3) for i, row in enumerate(PLAIN)]


def read(tmp_path, frame: pd.DataFrame) -> Battles:
    return read_battles(write(tmp_path / "b.parquet", as_parquet(frame)), strict=False)


@pytest.mark.parametrize(
    "text", ["[1] is a source", "[INST] hi [/INST]", '["a list", "as a text"]', "[", "[]", "null", '"quoted"']
)
def test_a_text_that_looks_like_a_list_stays_a_text_in_a_plain_file(tmp_path, text):
    rows = [*PLAIN[:29], ("29", [text], [text], ["no"], 0)]
    battles = read_battles(write(tmp_path / "b.csv", as_csv(named(rows))))
    assert len(battles.frame) == 30 and battles.frame.loc[29, "prompt"] == [text] == battles.frame.loc[29, "response_a"]
    assert battles.plain == ("prompt", "response_a", "response_b")


@pytest.mark.parametrize("cell", ["", "null", "plain text", '["cut off', "['single']"])
def test_a_broken_list_stays_a_bad_row_in_a_file_of_lists(tmp_path, cell):
    frame = competition(PLAIN)
    frame.loc[[3, 4], "response_a"] = cell
    battles = read_battles(write(tmp_path / "b.csv", as_csv(frame)))
    assert battles.bad_ids == ("3", "4") and len(battles.frame) == 28 and not battles.plain


def test_a_file_of_which_few_rows_are_lists_is_not_taken_for_plain_text(tmp_path):
    """4 % of 500 rows parse: what was meant as lists is broken, and no row is learned from as it is."""
    frame = competition([(str(i), ["q"], ["x"], ["y"], 0) for i in range(500)])
    frame.loc[20:, "prompt"] = "undecodable"
    battles = read_battles(write(tmp_path / "b.csv", as_csv(frame)))
    assert len(battles.bad_ids) == 480 and not battles.plain


@pytest.mark.parametrize("share", [0.011, 0.05, 0.2, 0.45])
def test_lists_of_texts_among_plain_answers_are_answers(tmp_path, share):
    """Models that were asked for JSON write it; no column of the file is of lists, and what was read says how many are."""
    rows = [(str(i), [f"name {i}"], [f"because {i}"], [f"never {i}"], i % 3) for i in range(200)]
    frame = named(rows)
    count = math.ceil(share * len(frame))
    frame.loc[: count - 1, "response_a"] = [json.dumps([f"a{i}", "b"]) for i in range(count)]
    battles = read_battles(write(tmp_path / "b.csv", as_csv(frame)))
    assert not battles.bad_ids and battles.frame["response_a"].tolist() == [[cell] for cell in frame["response_a"]]
    assert battles.told.endswith(f"plain text, one turn each ({count} cells are JSON lists of texts, taken as they stand)")


@pytest.mark.parametrize("broken", [1, 20, 90])
def test_a_column_of_lists_beside_others_is_one_however_many_are_broken(tmp_path, broken):
    frame = competition([(str(i), ["q"], ["x"], ["y"], 0) for i in range(100)])
    frame.loc[: broken - 1, "response_b"] = "cut of"
    battles = read_battles(write(tmp_path / "b.csv", as_csv(frame)))
    assert len(battles.bad_ids) == broken and not battles.plain and "plain" not in battles.told


@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda text: text.strip()), min_size=1, max_size=40))
def test_a_column_of_lists_is_never_plain_and_one_of_native_lists_neither(texts):
    assert are_plain([[json.dumps([text]) for text in texts]]) == [False]
    assert are_plain([[[text] for text in texts]]) == [False]
    assert are_plain([[f"a {text}" for text in texts]]) == [True]
    assert are_plain([["", None, " "]]) == [None]


def test_an_empty_cell_of_a_plain_column_is_an_empty_turn(tmp_path):
    frame = named(PLAIN)
    frame.loc[0, "response_a"] = None
    battles = read(tmp_path, frame)
    assert battles.frame.loc[0, "response_a"] == [""] and not battles.errors
    test_file = read(tmp_path, frame.head(1)[["id", "prompt", "response_a", "response_b"]])  # one row, one column blank
    assert len(test_file.frame) == 1 and len(test_file.plain) == 3


@pytest.mark.parametrize(
    ("frame", "kind", "can_tie"),
    [
        (competition(PLAIN), "the competition's", True),
        (named(PLAIN, language="English"), "WSDM Cup's", False),
        (named(PLAIN, language="English").drop(columns="winner").assign(scored=True), "WSDM Cup's", False),
        (named(TIED, language="English"), "prompt, two responses and winner", True),
        (named(PLAIN), "prompt, two responses and winner", True),
        (arena(PLAIN).assign(language="English"), "an arena export's", True),
        (arena(PLAIN).rename(columns={"id": "question_id"}), "an arena export's", True),
    ],
)
def test_the_kind_is_told_by_columns_and_says_whether_a_battle_can_be_a_tie(tmp_path, frame, kind, can_tie):
    battles = read(tmp_path, frame)
    assert (battles.kind, battles.can_tie, len(battles.frame)) == (kind, can_tie, 30)
    assert dataset_digest(battles) == dataset_digest(read(tmp_path, frame.iloc[::-1]))


@pytest.mark.parametrize(
    ("winner", "label"),
    [
        ("model_a", 0), ("model_b", 1), ("tie", 2), ("tie (bothbad)", 2), ("both_bad", 2), ("Model A", 0), ("bothbad", 2),
        ("", -1), (None, -1), ("model_c", -1), ("1", -1),
    ],
)  # fmt: skip
def test_winners_by_name(winner, label):
    assert label_of([winner]) == label


def test_a_winner_that_is_none_is_a_bad_row_and_names_what_may_stand_there(tmp_path):
    frame = named(PLAIN)
    frame.loc[7, "winner"] = "gpt-4"
    battles = read(tmp_path, frame)
    assert battles.bad_ids == ("7",) and "winner is gpt-4; it must be model_a" in battles.errors[0].message


def test_winner_columns_of_the_competition_go_before_a_winner_by_name(tmp_path):
    frame = competition(TIED).assign(winner="model_a")
    battles = read(tmp_path, frame)
    assert list(battles.frame["label"]) == [row[4] for row in TIED] and battles.extra_columns == ("winner",)


def test_messages_are_paired_turn_by_turn():
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "really", "image": None}]},
        {"role": "user", "content": "Two?"},
        {"role": "user", "content": "Please."},
    ]
    assert turns_of(talk, plain=False) == (["Be brief.\n\nOne?", "Two?\n\nPlease."], False)
    assert turns_of(talk, plain=False, answer=True) == (["1\n\nreally", None], False)
    assert turns_of([{"role": "assistant", "content": "x"}], plain=False, answer=True) == (["x"], False)
    turns, _ = conversation_of(talk, json.dumps(talk))
    assert turns[1] == turns[2] == ["1\n\nreally", None]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "more than text"),
        ([{"role": "tool", "content": "x"}], "neither the user's nor the model's"),
        ([{"content": "x"}], "no object with role"),
        (["x"], "no object with role"),
        ("[{'role': 'user'}]", "single quotes are Python's"),
        (None, "blank"),
        (3, "not a list"),
        ([{"role": "user", "content": "other"}], "ask different things"),
    ],
)
def test_a_conversation_that_is_none_is_a_bad_row(tmp_path, cell, message):
    rows = arena(PLAIN).to_dict("records")
    rows[5]["conversation_a"] = cell
    content = "\n".join(json.dumps(row) for row in rows).encode()
    battles = read_battles(write(tmp_path / "b.jsonl", content))
    assert battles.bad_ids == ("5",) and message in battles.errors[0].message


def test_a_column_of_messages_may_be_the_prompt(tmp_path):
    frame = named(PLAIN).rename(columns={"prompt": "messages"})
    frame["messages"] = [[{"role": "user", "content": text}] for text in frame["messages"]]
    battles = read(tmp_path, frame)
    assert dataset_digest(battles) == dataset_digest(read(tmp_path, named(PLAIN))) and battles.kind == "an arena export's"
    assert battles.plain == ("response_a", "response_b")


@pytest.mark.parametrize(
    ("cells", "ids"),
    [
        ([30192, 7], ["30192", "7"]),
        ([30192.0, 7.0], ["30192", "7"]),
        ([30192.0, 7.5], ["30192.0", "7.5"]),
        ([30192.0, float("nan")], ["30192", ""]),
        (["30192.0", "007"], ["30192.0", "007"]),
        ([2.0**60], ["1.152921504606847e+18"]),
    ],
)
def test_ids_are_text_as_in_the_file_and_whole_floats_whole_numbers(cells, ids):
    assert ids_of(cells) == ids


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b", "\0", "\x7f", "\x85", "\u2028", "\t"])
@pytest.mark.parametrize("make", [as_csv, as_jsonl, as_parquet], ids=["csv", "jsonl", "parquet"])
def test_an_id_with_a_control_character_is_refused_by_its_row(tmp_path, control, make):
    """Also at its end: a submission keyed by it would be no valid CSV, or of another id."""
    for row_id in (f"3{control}9", f"39{control}"):
        rows = [*PLAIN[:3], (row_id, *PLAIN[3][1:]), *PLAIN[4:]]
        with pytest.raises(ZooError, match=r"row 4: the id .* holds a line break or another control character") as refusal:
            read_battles(write(tmp_path / "b", make(competition(rows))))
        assert "\n" not in str(refusal.value)


def test_ids_and_winners_alone_are_enough_where_texts_are_not_needed(tmp_path):
    whole = read(tmp_path, competition(TIED))
    frame = competition(TIED)[["id", "winner_model_a", "winner_model_b", "winner_tie"]]
    for labels, told in (
        (frame, "by id"),
        (named(TIED)[["id", "winner"]], "by id"),
        (named(TIED)[["id", "winner", "prompt"]], "by prompt"),
    ):
        path = write(tmp_path / "labels.csv", as_csv(labels))
        battles = read_battles(path, need_texts=False)
        assert not battles.has_texts and told in battles.told and len(battles.frame) == 30
        assert dataset_digest(battles) == labels_digest(whole) != dataset_digest(whole)
        assert list(battles.frame["label"]) == [row[4] for row in TIED]
        with pytest.raises(ZooError, match=r"column (prompt|response_a) is missing"):
            read_battles(path)
    assert read_battles(write(tmp_path / "b.csv", as_csv(competition(TIED))), need_texts=False).has_texts


def test_a_file_without_ids_is_refused_with_the_mend(tmp_path):
    path = write(tmp_path / "b.csv", as_csv(competition(PLAIN).drop(columns="id")))
    with pytest.raises(ZooError, match=r"column id is missing; .*give every row an id of its own"):
        read_battles(path)


@pytest.mark.parametrize("make", [as_csv, as_parquet, as_jsonl])
def test_the_case_of_columns_does_not_matter(tmp_path, make):
    frame = competition([("1", ["q"], ["x"], ["y"], 0), ("2", ["r"], ["x"], ["y"], 2)])
    same = read_battles(write(tmp_path / "same", make(frame)))
    for rename in (str.upper, str.title):
        battles = read_battles(write(tmp_path / "b", make(frame.rename(columns=rename))))
        assert battles.labelled and dataset_digest(battles) == dataset_digest(same) and not battles.extra_columns


def test_of_two_columns_that_differ_in_case_the_usual_one_is_read(tmp_path):
    frame = competition([("1", ["q"], ["x"], ["y"], 0)]).assign(Prompt="other")
    battles = read_battles(write(tmp_path / "b.csv", as_csv(frame)))
    assert battles.frame["prompt"].tolist() == [["q"]] and battles.extra_columns == ("Prompt",)


@pytest.mark.parametrize(
    ("word", "label"),
    [("Draw", 2), ("neither", 2), ("Both are bad", 2), ("both_good", 2), ("Response A", 0), ("assistant_b", 1)],
)
def test_winners_by_words_known_elsewhere(tmp_path, word, label):
    content = f"ID,Prompt,Response_A,Response_B,Winner\n1,q,x,y,{word}\n"
    assert read_battles(write(tmp_path / "b.csv", content.encode())).frame["label"].tolist() == [label]


def test_winners_with_decimal_commas(tmp_path):
    content = b'id;prompt;response_a;response_b;winner_model_a;winner_model_b;winner_tie\n1;["q"];["x"];["y"];0,0;1,0;0,0\n'
    assert read_battles(write(tmp_path / "b.csv", content)).frame["label"].tolist() == [1]
