"""Reading battles: what is accepted, what is reported, how rows fall into folds, and which rows a selection takes."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.contracts import Held, Input, Selection
from zoo.data.battles import Battles, dataset_digest, join_turns, read_battles
from zoo.data.splits import assign_folds, fold_of, select_rows, unusable_ids
from zoo.errors import ZooError

HEADER = ["id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]
TURNS = st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=20), max_size=4)


def row(row_id: str, prompt: str = '["q"]', a: str = '["x"]', b: str = '["y"]', winners: str = "100") -> list[str]:
    return [row_id, "m", "n", prompt, a, b, *winners]


def write(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(tmp_path: Path, *rows: list[str], header: list[str] = HEADER) -> Battles:
    return read_battles(write(tmp_path / "b.csv", list(rows), header), strict=False)


def kinds(battles: Battles, severity: str) -> set[str]:
    return {p.kind for p in battles.problems if p.severity == severity}


def many(tmp_path: Path, n: int = 60) -> Battles:
    return read(tmp_path, *(row(str(i), json.dumps([f"question {i % 20}"]), winners="001") for i in range(n)))


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(TURNS, TURNS, TURNS, st.integers(0, 2)), min_size=1, max_size=6), ascii_only=st.booleans())
def test_what_was_written_is_read_back(tmp_path_factory, rows, ascii_only):
    path = tmp_path_factory.mktemp("read") / "b.csv"
    winners = ["100", "010", "001"]
    texts = [[json.dumps(turns, ensure_ascii=ascii_only) for turns in record[:3]] for record in rows]
    write(path, [row(str(i), *text, winners[record[3]]) for i, (text, record) in enumerate(zip(texts, rows, strict=True))])
    battles = read_battles(path)
    frame = battles.frame
    assert list(zip(frame["prompt"], frame["response_a"], frame["response_b"], frame["label"], strict=True)) == rows
    assert battles.labelled and battles.ids == tuple(frame["id"]) and not battles.bad_ids and not battles.errors


def test_gzip_byte_order_mark_and_crlf_are_read(tmp_path):
    plain = write(tmp_path / "b.csv", [row("1"), row("2")])
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\r\n", b"\n"))
    frames = [read_battles(tmp_path / name).frame for name in ("b.csv", "b.csv.gz", "bom.csv")]
    assert all(frame.equals(frames[0]) for frame in frames)


def test_null_turns_stay_null_and_the_text_null_stays_text(tmp_path):
    battles = read(tmp_path, row("1", '["null","b"]', '[null,"null"]', '["nullable",null]'))
    assert battles.frame.loc[0, "response_a"] == [None, "null"]
    assert battles.frame.loc[0, "response_b"] == ["nullable", None]
    assert not battles.problems


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("['single']", "not_json_list"),
        ('["cut off', "not_json_list"),
        ("plain text", "not_json_list"),
        ("", "not_json_list"),
        ('"text"', "not_json_list"),
        ('{"a": 1}', "not_json_list"),
        ("null", "not_json_list"),
        ('["a", 1]', "not_json_list"),
        ('[["a"]]', "not_json_list"),
        ("[" * 100_000, "not_json_list"),
    ],
)
def test_a_bad_field_keeps_its_row_apart_and_only_it(tmp_path, cell, kind):
    battles = read(tmp_path, row("1"), row("2", a=cell), row("3"))
    assert battles.bad_ids == ("2",) and battles.ids == ("1", "2", "3") and list(battles.frame["id"]) == ["1", "3"]
    (problem,) = battles.errors
    assert (problem.row_id, problem.row_number, problem.kind) == ("2", 2, kind) and "response_a" in problem.message


@pytest.mark.parametrize("winners", [("0", "0", "0"), ("1", "1", "0"), ("1", "", "0"), ("2", "0", "0"), ("yes", "0", "0")])
def test_a_row_without_exactly_one_winner_is_kept_apart(tmp_path, winners):
    battles = read(tmp_path, row("1"), [*row("2")[:6], *winners])
    assert battles.bad_ids == ("2",) and kinds(battles, "error") == {"winner_count"}


@pytest.mark.parametrize("winners", [("1", "0", "0"), ("1.0", "0.0", "0.0"), ("True", "False", "False")])
def test_winners_may_be_written_as_integers_floats_or_truth_values(tmp_path, winners):
    assert list(read(tmp_path, [*row("1")[:6], *winners]).frame["label"]) == [0]


def test_a_test_file_has_no_labels_with_or_without_the_columns(tmp_path):
    without = read(tmp_path, ["1", '["q"]', '["x"]', '["y"]'], header=["id", "prompt", "response_a", "response_b"])
    blank = read(tmp_path, [*row("1")[:6], "", "", ""])
    for battles in (without, blank):
        assert not battles.labelled and list(battles.frame["label"]) == [-1] and not battles.errors


def test_what_is_odd_but_usable_is_a_warning(tmp_path):
    battles = read(
        tmp_path,
        row("turns", '["q","r"]', '["x"]', '["y","z"]'),
        row("empty", a="[null]", b='[" "]'),
        row("prompt", prompt='[""]'),
        row("surrogate", a='["a\\ud83d!"]'),
        row("large", b=json.dumps(["y" * 1_000_001])),
    )
    assert kinds(battles, "warning") == {"turn_counts", "empty_answers", "empty_prompt", "lone_surrogates", "large_row"}
    assert not battles.errors and len(battles.frame) == 5
    assert battles.frame.loc[3, "response_a"] == ["a\ufffd!"]


def test_surrogate_pairs_are_characters_and_invalid_utf8_is_cleaned(tmp_path):
    path = write(tmp_path / "b.csv", [row("1", a='["\\ud83d\\ude00"]'), row("2", a='["caf#"]')])
    path.write_bytes(path.read_bytes().replace(b"#", b"\x81"))  # no character of Windows-1252 either
    battles = read_battles(path)
    assert list(battles.frame["response_a"]) == [["😀"], ["caf\ufffd"]]
    assert {p.row_id for p in battles.problems} == {"2"}
    join_turns(battles.frame.loc[1, "response_a"]).encode("utf-8")


def test_rows_with_too_few_or_too_many_fields_are_kept_apart(tmp_path):
    battles = read(tmp_path, row("1"), row("2")[:5], [*row("3"), "more"])
    assert battles.bad_ids == ("2", "3") and kinds(battles, "error") == {"field_count"}


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["id", "prompt", "response_a"], [["1", '["q"]', '["x"]']], "column response_b is missing"),
        (HEADER[:-1], [row("1")[:-1]], "column winner_tie is missing"),
        ([*HEADER, "prompt"], [[*row("1"), "p"]], "column prompt occurs more than once"),
        (HEADER, [row("7"), row("8"), row("7")], "row 3: id 7 occurs again"),
        (HEADER, [row("7"), row(" ")], "row 2: the id is empty"),
        (HEADER, [], "no rows"),
    ],
)
def test_a_file_that_cannot_be_keyed_or_read_is_refused(tmp_path, header, rows, message):
    path = write(tmp_path / "b.csv", rows, header)
    with pytest.raises(ZooError, match=message) as refusal:
        read_battles(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    assert any(p.fatal for p in read_battles(path, strict=False).problems)


def test_a_doubled_id_is_one_id(tmp_path):
    battles = read(tmp_path, row("1", winners="000"), row("1"), row("2"), row("2"))
    assert battles.ids == ("1", "2") and battles.bad_ids == ("1",) and list(battles.frame["id"]) == ["2"]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot gzip", b'id,prompt\n"unclosed'])
def test_what_is_no_csv_is_a_clear_error(tmp_path, content):
    path = tmp_path / "b.csv"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=r"b\.csv"):
        read_battles(path)
    with pytest.raises(ZooError, match="cannot be read"):
        read_battles(tmp_path / "absent.csv")


def test_digest_knows_texts_ids_and_labels_but_not_order(tmp_path):
    rows = [row("1"), row("2", '["r"]'), row("3", winners="001")]
    digest = dataset_digest(read(tmp_path, *rows))
    assert dataset_digest(read(tmp_path, *rows[::-1])) == digest
    changes = [row("9"), row("1", '["p"]'), row("1", a='["z"]'), row("1", a='[null, "x"]'), row("1", winners="010")]
    assert len({digest, *(dataset_digest(read(tmp_path, change, *rows[1:])) for change in changes)}) == len(changes) + 1


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip), st.integers(2, 9))
def test_fold_ignores_case_space_unicode_form_and_later_turns(text, n_folds):
    fold = fold_of([text], n_folds)
    assert 0 <= fold < n_folds
    spaced = f"\n {text}  "
    assert fold_of([spaced, "later"], n_folds) == fold
    assert fold_of([None, " ", text], n_folds) == fold
    assert fold_of([f"ABC é ﬁ {text}"], n_folds) == fold_of([f"abc  e\u0301 fi {text}"], n_folds)


def test_folds_are_grouped_by_prompt_stable_and_balanced(tmp_path):
    battles = many(tmp_path, 2000)
    frame = battles.frame.assign(prompt=[[f"question {i % 1000}"] for i in range(2000)])
    folds = assign_folds(frame, 5)
    assert (folds[:1000] == folds[1000:]).all()
    order = np.random.default_rng(0).permutation(2000)[:700]
    assert (assign_folds(frame.iloc[order], 5) == folds[order]).all()
    assert np.bincount(folds, minlength=5).min() > 300


def test_held_out_rows_are_one_fold_and_all_rows_for_a_model_that_has_its_own_folds(tmp_path):
    battles = many(tmp_path)
    parts = [select_rows(battles, Selection(), Held(n_folds=5, fold=k)) for k in range(5)]
    assert sorted(i for part in parts for i in part["id"]) == sorted(battles.ids)
    assert all((assign_folds(part, 5) == k).all() for k, part in enumerate(parts))
    assert list(select_rows(battles, Selection())["id"]) == list(battles.ids)


def test_a_smaller_sample_is_part_of_a_larger_one_whatever_the_order_of_the_file(tmp_path):
    battles = many(tmp_path)
    small, large = (select_rows(battles, Selection(rows="all", max_rows=n)) for n in (10, 30))
    assert len(small) == 10 and set(small["id"]) < set(large["id"])
    assert list(small["id"]) == [i for i in battles.ids if i in set(small["id"])]
    reversed_battles = read(tmp_path, *(row(i, '["question"]') for i in battles.ids[::-1]))
    assert set(select_rows(reversed_battles, Selection(rows="all", max_rows=10))["id"]) == set(small["id"])


def test_listed_rows_come_in_the_order_of_the_list(tmp_path):
    battles = read(tmp_path, row("1"), row("2", a="bad"), row("3"), row("4"))
    listing = tmp_path / "ids.txt"
    selection = Selection(rows="listed", ids=Input(path=listing, fingerprint="x"))
    listing.write_text("4\n2\n1\n")
    assert list(select_rows(battles, selection)["id"]) == ["4", "1"] and unusable_ids(battles, selection) == ["2"]
    assert unusable_ids(battles, Selection(rows="all")) == ["2"] == unusable_ids(battles, Selection())
    for text, message in (("4\n9\n", "1 ids are not in"), ("4\n4\n", "more than once")):
        listing.write_text(text)
        with pytest.raises(ZooError, match=message):
            select_rows(battles, selection)


def test_columns_that_are_asked_for_are_kept_by_id(tmp_path: Path) -> None:
    """Also of rows that cannot be used; of an id that occurs twice, the first; what is not in the file is not there."""
    rows = [[*row("1"), "3", "x"], [*row("2", prompt="no list"), "4", "y"], [*row("1"), "5", "z"], row("3")]
    path = write(tmp_path / "b.csv", rows, [*HEADER, "votes_a", "note"])
    battles = read_battles(path, strict=False, keep=("votes_a", "votes_b", "prompt"))
    assert battles.kept.to_dict("index") == {"1": {"votes_a": "3"}, "2": {"votes_a": "4"}, "3": {"votes_a": ""}}
    assert battles.extra_columns == ("votes_a", "note") and not battles.frame.columns.isin(["votes_a", "note"]).any()
    assert read_battles(path, strict=False).kept.empty


@pytest.mark.parametrize("make", ["csv", "jsonl", "parquet"])
def test_answers_that_are_json_lists_of_other_things_leave_a_plain_file_plain(tmp_path, make):
    """A model that was asked for JSON gives objects: no turns."""
    odd = {0: '[{"name": "x"}]', 25: "[[1, 2], 3]"}
    answers = [odd.get(i % 40) or f"because {i}" for i in range(1020)]
    frame = pd.DataFrame({"id": range(1020), "prompt": "why", "response_a": answers, "response_b": "no", "winner": "model_a"})
    path = tmp_path / f"b.{make}"
    if make == "csv":
        frame.to_csv(path, index=False)
    elif make == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    battles = read_battles(path)
    assert not battles.bad_ids and battles.frame["response_a"].tolist() == [[answer] for answer in answers]


def test_a_number_among_the_texts_of_a_jsonl_file_is_its_text(tmp_path):
    rows = [{"id": i, "prompt": "q", "response_a": 42 if i == 3 else "a", "response_b": "b"} for i in range(20)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    battles = read_battles(tmp_path / "b.jsonl")
    assert not battles.bad_ids and battles.frame["response_a"].tolist() == [["42" if i == 3 else "a"] for i in range(20)]


def test_a_file_of_lists_stays_one_whatever_is_broken_in_it(tmp_path):
    rows = [
        {"id": i, "prompt": '["q"]', "response_a": '[{"x": 1}]' if i < 9 else '["a"]', "response_b": '["b"]'} for i in range(20)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    battles = read_battles(tmp_path / "b.jsonl")
    assert battles.bad_ids == tuple(map(str, range(9))) and battles.frame["response_a"].tolist() == [["a"]] * 11
