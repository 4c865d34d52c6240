"""The submission's form, the prior of every row, and what makes a file whole; the product's own reader is the oracle."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.bundle.notebook.places import Refused
from zoo.bundle.notebook.submission import USUAL, Form, battle_ids, fault, form_of, write_prior
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.scores.tables import read_submission

PRIOR = (0.4, 0.35, 0.25)
FOUR = form_of(None)[0]


def table(ids: list[str], column: str = "id") -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([[column, "prompt"], *([row_id, '["a,\n""b"]'] for row_id in ids)])
    return text.getvalue()


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1).map(str.strip).filter(bool), min_size=1
    )
)
def test_the_prior_has_every_id_once_and_is_whole(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("prior")
    (folder / "test.csv").write_text(table(ids), newline="")
    rows = write_prior(folder / "test.csv", FOUR, PRIOR, folder / "submission.csv")
    unique = list(dict.fromkeys(ids))
    assert rows == len(unique) and fault(folder / "submission.csv", folder / "test.csv", FOUR) == ""
    with (folder / "submission.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == unique


def test_the_product_reads_the_same_ids_and_the_prior(tmp_path: Path) -> None:
    test, output = tmp_path / "test.csv", tmp_path / "submission.csv"
    write_sample(test, 300, 5)
    write_prior(test, FOUR, PRIOR, output)
    assert list(battle_ids(test)) == list(read_battles(test).ids)
    frame = read_submission(output)
    assert frame["id"].tolist() == list(read_battles(test).ids)
    assert (frame[["p_a", "p_b", "p_tie"]].to_numpy() == PRIOR).all()


@pytest.mark.parametrize(
    ("sample", "columns", "row"),
    [
        (
            "winner_tie,id,winner_model_b,winner_model_a\n0.3,7,0.3,0.3\n",
            ["winner_tie", "id", "winner_model_b", "winner_model_a"],
            ["0.25", "7", "0.35", "0.4"],
        ),
        ("id,winner\n7,model_b\n", ["id", "winner"], ["7", "model_a"]),
        ("ID,Winner\n7,B\n", ["ID", "Winner"], ["7", "A"]),
        (" id ,winner \n6\n\n7,B\n", ["id", "winner"], ["7", "A"]),
        (
            "id,winner_model_a,winner_model_b\n7,1,0\n",
            ["id", "winner_model_a", "winner_model_b"],
            ["7", repr(0.4 / 0.75), repr(0.35 / 0.75)],
        ),
    ],
)
def test_a_sample_s_columns_and_order(tmp_path: Path, sample: str, columns: list[str], row: list[str]) -> None:
    (tmp_path / "sample_submission.csv").write_text(sample)
    (tmp_path / "test.csv").write_text(table(["7"]))
    form, told = form_of(tmp_path / "sample_submission.csv")
    write_prior(tmp_path / "test.csv", form, PRIOR, tmp_path / "submission.csv")
    assert list(csv.reader((tmp_path / "submission.csv").open())) == [columns, row]
    assert fault(tmp_path / "submission.csv", tmp_path / "test.csv", form) == "" and not told.startswith("warning")


@pytest.mark.parametrize(
    "sample", ["id,score\n1,2\n", "", "winner_model_a,winner_model_b\n", "id,winner,winner\n", "id,a,tie\n1,0.5,0.5\n"]
)
def test_a_sample_that_nobody_knows_is_told(tmp_path: Path, sample: str) -> None:
    (tmp_path / "sample_submission.csv").write_text(sample)
    form, told = form_of(tmp_path / "sample_submission.csv")
    assert form.columns == USUAL and told.startswith("warning")


def test_ids_that_a_competition_writes_otherwise_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text(table(["30192.0", "0030193"]))
    (tmp_path / "submission.csv").write_text(",".join(USUAL) + "\n30192,1,0,0\n30193,0,0,1\n")
    assert fault(tmp_path / "submission.csv", tmp_path / "test.csv", FOUR) == ""


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ("1,0.5,0.5,0\n", "fewer rows"),
        ("1,0.5,0.5,0\n2,0.5,0.5,0\n3,0.5,0.5,0\n", "more rows"),
        ("1,0.5,0.5,0\n1,0.5,0.5,0\n", "row 2 has id 1, 2 wanted"),
        ("1,0.5,0.5,0\n2,0.5,0.5\n", "row 2 has 3 cells"),
        ("1,0.5,0.5,0\n2,0.5,0.5,inf\n", "row 2, id 2: not finite"),
        ("1,0.5,0.5,0\n2,1.5,-0.5,0\n", "row 2, id 2: not finite, or negative"),
        ("1,0.5,0.5,0\n2,,0.5,0\n", "not a number"),
        ("1,0.5,0.5,0.1\n2,0.5,0.5,0\n", "row 1, id 1: sums to 1.1"),
    ],
)
def test_what_is_not_whole(tmp_path: Path, rows: str, wrong: str) -> None:
    (tmp_path / "test.csv").write_text(table(["1", "2"]))
    (tmp_path / "submission.csv").write_text(",".join(USUAL) + "\n" + rows)
    assert wrong in fault(tmp_path / "submission.csv", tmp_path / "test.csv", FOUR)


def test_a_long_conversation_and_a_mark_of_byte_order_are_read(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text(f'id,prompt\n1,"{"x" * 300_000}"\n2,y\n', encoding="utf-8-sig")
    assert list(battle_ids(tmp_path / "test.csv")) == ["1", "2"]


@pytest.mark.parametrize("text", ["", "prompt\nx\n", "\n"])
def test_a_file_without_ids_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "test.csv").write_text(text)
    with pytest.raises(Refused, match="no column id"):
        list(battle_ids(tmp_path / "test.csv"))


def test_pandas_agrees_on_a_winner(tmp_path: Path) -> None:
    form = Form(("id", "winner"), ("id", "winner"))
    (tmp_path / "test.csv").write_text(table(["1", "2"]))
    write_prior(tmp_path / "test.csv", form, (0.2, 0.3, 0.5), tmp_path / "submission.csv")
    assert pd.read_csv(tmp_path / "submission.csv")["winner"].tolist() == ["model_b", "model_b"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_files_with_other_separators_are_read_as_the_zoo_reads_them(tmp_path: Path, separator: str) -> None:
    rows = [("id", "prompt", "response_a", "response_b"), *((f"{i}", '["p, q; r"]', '["a"]', '["b"]') for i in range(3))]
    test = tmp_path / "test.csv"
    with test.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    assert list(battle_ids(test)) == list(read_battles(test).ids) == ["0", "1", "2"]
    sample = tmp_path / "sample_submission.csv"
    sample.write_text(separator.join(USUAL) + "\n")
    form, _ = form_of(sample)
    assert form.columns == USUAL
    assert write_prior(test, form, PRIOR, tmp_path / "submission.csv") == 3
    assert fault(tmp_path / "submission.csv", test, form) == ""
