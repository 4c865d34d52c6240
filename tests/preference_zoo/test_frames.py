"""Frames in the place of files: the same is read of both, and what is wrong with either is told in the same words."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import preference_zoo as pz
from preference_zoo.handed import Handed, text_of
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores

TURN = st.one_of(st.none(), st.text(max_size=12))
TURNS = st.lists(TURN, min_size=1, max_size=3).filter(lambda turns: any((turn or "").strip() for turn in turns))
WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(TURNS, TURNS, TURNS, st.integers(0, 2)), min_size=1, max_size=4))
def test_battles_that_were_read_are_read_again_as_the_same(tmp_path: Path, rows: list[tuple[list, list, list, int]]) -> None:
    """Turns that are empty, hold quotes, line ends, null or half a surrogate pair; folds and digests rest on them."""
    frame = pd.DataFrame([{"id": i, "prompt": p, "response_a": a, "response_b": b} for i, (p, a, b, _) in enumerate(rows)])
    frame[WINNERS] = np.eye(3, dtype=int)[[label for *_, label in rows]]
    path = tmp_path / "battles.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    by_file = pz.battles(path, max_bad_rows=1)
    by_frame = pz.battles(frame, max_bad_rows=1)
    pd.testing.assert_frame_equal(by_frame, by_file)
    pd.testing.assert_frame_equal(pz.battles(by_file, max_bad_rows=1), by_file)
    with Handed() as handed:
        digests = {dataset_digest(read_battles(handed.path(one, "battles"))) for one in (by_file, by_frame)}
    assert digests == {dataset_digest(read_battles(path))}


def test_files_of_other_kinds_stay_of_their_kind(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["x", "y"], "prompt": ["p", "q"], "response_a": ["a", "b"], "response_b": ["c", "d"]})
    frame["winner"], frame["language"], frame["votes_a"] = ["model_b", "model_a"], ["en", "de"], [0.25, 0.5]
    read = pz.battles(frame)
    assert read["winner"].tolist() == ["model_b", "model_a"] and read["votes_a"].tolist() == [0.25, 0.5]
    with Handed() as handed:
        assert not read_battles(handed.path(read, "battles")).can_tie, "no battle of this kind is a tie"
    unlabelled = pz.battles(frame.drop(columns=["winner", "language"]))
    assert not {"winner", *WINNERS} & set(unlabelled.columns)


def test_numbers_come_through_to_the_last_digit_and_an_index_of_ids_counts() -> None:
    values = np.random.default_rng(0).dirichlet([1, 1, 1], size=50)
    frame = pd.DataFrame(values, columns=["p_a", "p_b", "p_tie"], index=pd.Index(range(50), name="id"))
    with Handed() as handed:
        read = pd.read_csv(handed.path(frame, "scores"), float_precision="round_trip")
    assert (read[["p_a", "p_b", "p_tie"]].to_numpy() == values).all() and read["id"].tolist() == list(range(50))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame.drop(columns="p_b"),
        lambda frame: frame.assign(p_a=2.0),
        lambda frame: frame.assign(p_a=frame["p_a"].mask(frame.index == 3, np.nan)),
        lambda frame: frame.assign(p_a=["much"] * len(frame)),
        lambda frame: frame.assign(id=["1"] * len(frame)),
        lambda frame: frame.drop(columns="id"),
        lambda frame: frame[:5],
        lambda frame: frame.iloc[:0],
        lambda frame: pd.concat([frame, frame["p_a"]], axis=1),
        lambda frame: frame.set_axis(["id", *WINNERS], axis=1).assign(winner_model_a=0, winner_model_b=0, winner_tie=1),
    ],
    ids=["column", "sums", "nan", "words", "ids", "noids", "rows", "empty", "twice", "labels"],
)
def test_a_wrong_frame_is_refused_in_the_words_of_the_command(spoil, sample_csv: Path, tmp_path: Path) -> None:
    frame = pz.battles(sample_csv)[["id"]].assign(p_a=0.5, p_b=0.25, p_tie=0.25)
    wrong, path = spoil(frame), tmp_path / "scores.csv"
    path.write_text(text_of(wrong))
    with pytest.raises(ZooError) as of_command:
        import_scores("x", path, sample_csv, target="cpu", store=tmp_path / "store")
    with pytest.raises(pz.ZooError) as of_frame:
        pz.import_scores(wrong, "x", labels=sample_csv, target="cpu")
    assert str(of_frame.value) == str(of_command.value).replace(str(path), "scores")
    assert "\n" not in str(of_frame.value) and str(tmp_path) not in str(of_frame.value)


def test_tables_of_a_build_are_named_as_its_caller_names_them(sample_csv: Path, tmp_path: Path) -> None:
    frame = pz.battles(sample_csv)[["id"]].assign(p_a=0.5, p_b=0.25, p_tie=0.25)
    with pytest.raises(pz.ZooError, match=r"^mine: 1 row has probabilities that do not sum to 1: 8000003$"):
        wrong = frame.assign(p_a=frame["p_a"].mask(frame.index == 3, 0.9))
        pz.build(scores={"other": frame, "mine": wrong}, labels=sample_csv, output=tmp_path / "plan.json")
    with pytest.raises(pz.ZooError, match=r"^labels: has no winner columns"):
        pz.build(scores={"mine": frame}, labels=frame[["id"]], output=tmp_path / "plan.json")


def test_what_is_neither_frame_nor_path_is_refused(sample_csv: Path) -> None:
    with pytest.raises(pz.ZooError, match="battles: give a pandas DataFrame or the path of a file, not a list"):
        pz.battles([{"id": 1}])  # type: ignore[arg-type]


def test_an_error_is_one_line_in_a_notebook() -> None:
    """IPython asks exceptions for this; a traceback through the project's own code helps nobody who handed over a frame."""
    assert ZooError("scores: lacks column p_b")._render_traceback_() == ["error: scores: lacks column p_b"]


def test_a_frame_that_artifacts_point_to_stays_once_and_others_go(sample_csv: Path, own_home: Path) -> None:
    frame = pz.battles(sample_csv)
    with Handed() as handed:
        kept = {handed.path(frame, "battles", keep=True), handed.path(frame.copy(), "battles", keep=True)}
        gone = handed.path(frame, "battles")
    assert len(kept) == 1 and kept.pop().exists() and not gone.exists()


def test_a_table_of_frames_is_that_of_its_files(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "battles.csv", rows=60, seed=4).path
    labels = pz.battles(sample)[["id", *WINNERS]]
    scores = labels[["id"]].assign(p_a=0.4, p_b=0.35, p_tie=0.25)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    labels.to_csv(tmp_path / "y.csv", index=False)
    one = pz.import_scores(scores, "one", labels=labels, seconds_per_row=1.0)
    two = pz.import_scores(tmp_path / "scores.csv", "two", labels=tmp_path / "y.csv", seconds_per_row=1.0)
    assert one["log_loss"][0] == two["log_loss"][0]
    assert set(pz.leaderboard()["dataset"]) == {pz.leaderboard()["dataset"][0]}, "digests go by content"


def test_a_member_is_no_path(tmp_path: Path) -> None:
    """A frame's file lies in the call's own folder, whatever its member is called, and texts name it as its caller does."""
    frame = pd.DataFrame({"id": [1], "p_a": [1.0]})
    for name in ("../../up", str(tmp_path / "away"), "x" * 300, "line\nend", "nul\0", 3, ""):
        with Handed() as handed:
            path = handed.paths({name: frame})[str(name)]  # type: ignore[dict-item]
            assert path.exists() and path.parent.parent.name.startswith("preference-zoo-") and ".." not in path.parts
            assert handed.named(f"{path}: is wrong") == f"{name}: is wrong"
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(pz.ZooError, match=r"^scores: give tables by their members' names, .* not a DataFrame$"):
        pz.build(scores=frame, labels=frame)  # type: ignore[arg-type]


def test_an_index_says_nothing_but_where_it_is_called_id() -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "p_a": [0.5, 1.0]})
    assert text_of(frame.rename_axis("p_a")) == text_of(frame.set_axis([7, 7])) == text_of(frame)
    several = frame.assign(fold=0).set_index(["fold", "id"])
    assert pd.read_csv(io.StringIO(text_of(several)))["id"].tolist() == ["a", "b"]


def test_missing_turns_of_a_list_are_missing() -> None:
    frame = pd.DataFrame({"turns": [["x", float("nan")], ("x", pd.NA), np.array(["x", None], dtype=object)]})
    assert pd.read_csv(io.StringIO(text_of(frame)))["turns"].map(json.loads).tolist() == [["x", None]] * 3


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: pz.run("lexical", "v.csv", fold=-1), "fold=-1"),
        (lambda: pz.run("lexical", "v.csv", folds=0), "folds=0"),
        (lambda: pz.run("lexical", "v.csv", score_rows=0), "score_rows=0"),
        (lambda: pz.cost("llama-3-8b", rows=-1), "rows=-1"),
        (lambda: pz.leaderboard(top=0), "top=0"),
        (lambda: pz.frontier(points=1), "points=1"),
        (lambda: pz.build(rows=0), "rows=0"),
        (lambda: pz.build(trials=-1), "trials=-1"),
        (lambda: pz.build(n_jobs=True), "n_jobs=True"),
    ],
)
def test_numbers_are_held_to_the_bounds_of_the_commands(call, name: str) -> None:
    with pytest.raises(pz.ZooError, match=f"^{name}: give a whole number from [012] on$"):
        call()
