"""A competition's own columns: what a sample says of them, and what is written and read back in its form."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.battles_files import write
from zoo.errors import ZooError
from zoo.pipeline.submissions import read_predictions, read_sample
from zoo.scores.tables import without_ties, write_submission

P = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.25, 0.25, 0.5]])
IDS = ["136060", "211333", "1233961"]


def written(place: Path, sample: str, ids: list[str] | None = None, **named: str) -> pd.DataFrame:
    """What a submission in the form of a sample of this text holds, cells as text."""
    form = read_sample(write(place / "sample.csv", sample.encode()), named or None).form
    write_submission(IDS if ids is None else ids, P, place / "out.csv", form)
    return pd.read_csv(place / "out.csv", dtype=str)


def rows(header: str, cells: str) -> str:
    return header + "\n" + "".join(f"{row_id},{cells}\n" for row_id in IDS)


def test_the_lmsys_sample_is_what_is_written_without_one(tmp_path: Path) -> None:
    made = written(tmp_path, rows("id,winner_model_a,winner_model_b,winner_tie", "0.333,0.333,0.334"))
    write_submission(IDS, P, tmp_path / "plain.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    assert made["id"].tolist() == IDS


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("model_a", ["model_a", "model_b", "model_a"]),
        ("model_b", ["model_a", "model_b", "model_a"]),
        ("A", ["A", "B", "A"]),
        ("Response (b)", ["Response (a)", "Response (b)", "Response (a)"]),
        ("", ["model_a", "model_b", "model_a"]),
    ],
)
def test_a_winner_is_the_likelier_of_a_and_b_as_the_sample_spells_them(says: str, expected: list[str], tmp_path: Path) -> None:
    made = written(tmp_path, rows("id,winner", says))
    assert list(made.columns) == ["id", "winner"] and made["winner"].tolist() == expected


def test_a_winner_is_never_a_tie(tmp_path: Path) -> None:
    assert written(tmp_path, rows("id,winner", "tie"))["winner"].tolist() == ["model_a", "model_b", "model_a"]


def test_columns_come_in_the_sample_s_order_and_two_answers_sum_to_one(tmp_path: Path) -> None:
    text = "Prob_Model_B,row_id,prob_model_a\n" + "".join(f"0.5,{row_id},0.5\n" for row_id in IDS)
    made = written(tmp_path, text).rename(columns=str.lower)
    assert list(made.columns) == ["prob_model_b", "row_id", "prob_model_a"]
    numbers = made[["prob_model_a", "prob_model_b"]].astype(float).to_numpy()
    np.testing.assert_allclose(numbers, without_ties(P)[:, :2])


def test_names_that_nobody_knows_are_told_by_hand(tmp_path: Path) -> None:
    text = "key,left,right\n" + "".join(f"{row_id},0.5,0.5\n" for row_id in IDS)
    made = written(tmp_path, text, id="key", a="left", b="right")
    np.testing.assert_allclose(made["left"].astype(float), without_ties(P)[:, 0])
    with pytest.raises(ZooError, match="'key' is not known; name it with --columns"):
        read_sample(tmp_path / "sample.csv")


@given(numbers=st.lists(st.integers(0, 10**9), min_size=3, max_size=3, unique=True))
def test_ids_are_whole_numbers_where_the_sample_s_are(numbers: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("ids")
    sample = "id,winner\n" + "".join(f"{number},model_a\n" for number in numbers)
    assert written(place, sample, [f"{number}.0" for number in numbers])["id"].tolist() == [str(n) for n in numbers]
    text = "id,winner\n" + "".join(f"x{number},model_a\n" for number in numbers)
    assert written(place, text, [f"{number}.0" for number in numbers])["id"].tolist() == [f"{n}.0" for n in numbers]


def test_ids_that_would_become_one_stay_as_they_stand(tmp_path: Path) -> None:
    assert written(tmp_path, rows("id,winner", "model_a"), ["1", "01", "2"])["id"].tolist() == ["1", "01", "2"]


def test_ids_that_differ_are_told_in_one_line(tmp_path: Path) -> None:
    sample = read_sample(write(tmp_path / "s.csv", rows("id,winner", "model_a").encode()))
    assert sample.told_of(IDS) == ""
    told = sample.told_of([*IDS[:2], "7", "8"])
    assert "1 of its 3 ids are not to be predicted, first 1233961" in told
    assert "2 of the 4 rows written are not in it, first 7" in told and "\n" not in told


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("id,winner,colour\n1,model_a,red\n", "'colour' is not known"),
        ("id,winner\n1,maybe\n", "winner says 'maybe'"),
        ("id\n1\n", "no columns for A and B"),
        ("winner\nmodel_a\n", "lacks a column of ids"),
        ("id,p_a,prob_a,p_b\n1,0,0,0\n", "p_a and prob_a"),
        ("id,winner\n", "no rows below its header"),
        ("id,winner\n,model_a\n", "no id"),
    ],
)
def test_a_sample_that_says_too_little_is_refused(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=match):
        read_sample(write(tmp_path / "s.csv", text.encode()))


@pytest.mark.parametrize("header", ["id,winner_model_a,winner_model_b,winner_tie", "p_tie,id,p_b,p_a"])
def test_what_was_written_with_probabilities_is_read_back(header: str, tmp_path: Path) -> None:
    place = header.split(",").index("id")
    cells = [["0.333"] * place + [row_id] + ["0.333"] * (3 - place) for row_id in IDS]
    written(tmp_path, header + "\n" + "".join(",".join(row) + "\n" for row in cells))
    back = read_predictions(tmp_path / "out.csv", set(IDS), ties=True)
    assert back["id"].tolist() == IDS
    np.testing.assert_allclose(back[["p_a", "p_b", "p_tie"]].to_numpy(), P)


def test_winners_alone_cannot_be_judged_by_log_loss(tmp_path: Path) -> None:
    written(tmp_path, rows("id,winner", "model_a"))
    with pytest.raises(ZooError, match="holds winners, and log loss is of probabilities"):
        read_predictions(tmp_path / "out.csv", set(IDS), ties=True)


def test_a_parquet_sample_is_read_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"id": [int(i) for i in IDS], "winner": "model_a"}).to_parquet(buffer)
    assert read_sample(write(tmp_path / "s.parquet", buffer.getvalue())).ids == tuple(IDS)
