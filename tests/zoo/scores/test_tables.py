"""Score tables, submissions, and the metrics, against scikit-learn and closed forms."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import log_loss

from tests.helpers.manifests import score_card
from zoo.contracts import Cost, Variant
from zoo.errors import ZooError
from zoo.scores.metrics import accuracy_of_two, log_loss_rows, recalibrated_log_loss, score_metrics
from zoo.scores.tables import (
    COLUMNS,
    label_probabilities,
    probabilities,
    read_card,
    read_scores,
    read_submission,
    score_table,
    swap_sides,
    unscored_table,
    validate_scores,
    without_ties,
    write_card,
    write_scores,
    write_submission,
)

P = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8]])
IDS = ["b", "a", "007"]
LOGITS = arrays(np.float64, st.tuples(st.integers(2, 40), st.just(3)), elements=st.floats(-6, 6))
few = settings(max_examples=30, deadline=None)


def labels_for(p: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, size=len(p))


def test_a_table_is_read_back_as_written(tmp_path):
    scored = score_table(IDS, P, fold=[0, 1, 2], n_tokens=[5, 6, 7], n_truncated_tokens=1)
    table = pd.concat([scored, unscored_table(["bad"], "row: not a JSON list")], ignore_index=True)
    write_scores(table, tmp_path / "scores.parquet")
    again = read_scores(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(again, table)
    assert tuple(again.columns) == COLUMNS and np.isnan(probabilities(again)[3]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ["b", "b", "c"]}, "more than once: b"),
        ({"id": ["b", "", "c"]}, "missing ids"),
        ({"p_a": [0.2, np.nan, 0.1]}, "NaN or infinite.*: a"),
        ({"p_a": [0.2, 1.2, 0.1], "p_b": [0.3, -0.2, 0.1]}, "negative.*: a"),
        ({"p_a": [0.2, 1.0, 0.1001]}, "do not sum to 1: 007"),
        ({"status": ["ok", "too long", "ok"]}, "though status is not ok.*: a"),
    ],
)
def test_a_table_that_breaks_the_contract_is_neither_written_nor_read(tmp_path, change, message):
    table = score_table(IDS, P).assign(**change)
    with pytest.raises(ZooError, match=message):
        write_scores(table, tmp_path / "scores.parquet")
    assert not list(tmp_path.iterdir())
    table.to_parquet(tmp_path / "scores.parquet")
    with pytest.raises(ZooError, match=message):
        read_scores(tmp_path / "scores.parquet")


def test_ids_are_held_against_those_of_the_battles():
    validate_scores(score_table(IDS, P), "t", ids=IDS[::-1])
    with pytest.raises(ZooError, match="1 row has ids missing from the table: c"):
        validate_scores(score_table(IDS, P), "t", ids=[*IDS, "c"])
    with pytest.raises(ZooError, match="1 row has ids that the battles do not have: 007"):
        validate_scores(score_table(IDS, P), "t", ids=IDS[:2])
    with pytest.raises(ZooError, match="lacks column status"):
        validate_scores(score_table(IDS, P).drop(columns="status"), "t")


def test_what_is_no_table_or_card_is_a_clear_error(tmp_path):
    (tmp_path / "x").write_bytes(b"PAR1 torn")
    for read in (read_scores, read_card, read_submission):
        for name in ("x", "absent"):
            with pytest.raises(ZooError, match=str(tmp_path / name)):
                read(tmp_path / name)


def test_a_card_is_read_back_as_written(tmp_path):
    card = score_card("m@ab", Variant(max_tokens=64), cost=Cost(target="cpu", load_seconds=1.5, seconds_per_row=0.1))
    write_card(card, tmp_path / "scores.json")
    assert read_card(tmp_path / "scores.json") == card


@few
@given(LOGITS)
def test_a_submission_keeps_ids_and_every_digit(tmp_path_factory, logits):
    path: Path = tmp_path_factory.mktemp("submission") / "s.csv"
    p, ids = softmax(logits, axis=1), [f"{i:03d}" for i in range(len(logits))]
    write_submission(ids, p, path)
    assert path.read_text().splitlines()[0] == "id,winner_model_a,winner_model_b,winner_tie"
    frame = read_submission(path)
    assert list(frame["id"]) == ids and (probabilities(frame) == p).all()


def test_a_submission_with_a_bad_row_is_not_written(tmp_path):
    with pytest.raises(ZooError, match="NaN"):
        write_submission(["1"], np.full((1, 3), np.nan), tmp_path / "s.csv")
    assert not list(tmp_path.iterdir())


@few
@given(LOGITS)
def test_log_loss_is_scikit_learns(logits):
    p = softmax(logits, axis=1)
    y = labels_for(p)
    assert log_loss_rows(p, y).mean() == pytest.approx(log_loss(y, p, labels=[0, 1, 2]), rel=1e-12)


def test_an_impossible_label_costs_a_finite_amount():
    rows = log_loss_rows(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), np.array([0, 1]))
    assert rows == pytest.approx([0, -np.log(1e-15)], abs=1e-12)


@few
@given(LOGITS)
def test_exchanging_the_sides_of_everything_changes_no_metric_but_their_names(logits):
    p = softmax(logits, axis=1)
    y = labels_for(p)
    assert (swap_sides(swap_sides(p)) == p).all()
    there, back = score_metrics(p, y), score_metrics(swap_sides(p), np.array([1, 0, 2])[y])
    assert back["val/log_loss"] == pytest.approx(there["val/log_loss"])
    assert back.get("val/log_loss_a") == pytest.approx(there.get("val/log_loss_b"))
    assert back.get("val/log_loss_tie") == pytest.approx(there.get("val/log_loss_tie"))


@few
@given(LOGITS)
def test_parts_add_up(logits):
    p = softmax(logits, axis=1)
    y = labels_for(p)
    metrics = score_metrics(p, y, np.arange(len(p)))
    shares = np.bincount(y, minlength=3) / len(y)
    by_label = sum(shares[i] * metrics.get(f"val/log_loss_{name}", 0.0) for i, name in enumerate(("a", "b", "tie")))
    assert by_label == pytest.approx(metrics["val/log_loss"])
    assert metrics["val/refinement"] + metrics["val/calibration_error"] == pytest.approx(metrics["val/log_loss"])
    assert metrics["val/calibration_error"] >= 0 and all(np.isfinite(list(metrics.values())))
    assert metrics["val/refinement"] <= metrics["baseline/log_loss_prior"] + 1e-4  # inverse temperature near 0 is the prior


def test_recalibration_undoes_a_temperature_and_a_bias():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 1.5
    p = softmax(logits, axis=1)
    y = np.array([rng.choice(3, p=row) for row in p])
    bent = softmax(2.5 * logits + np.array([0.7, -0.4, 0.0]), axis=1)
    assert recalibrated_log_loss(bent, y) == pytest.approx(recalibrated_log_loss(p, y), abs=1e-6)
    assert score_metrics(p, y)["val/calibration_error"] < 4 * 1.5 / len(y)  # what three parameters flatter, four times over
    assert score_metrics(bent, y)["val/calibration_error"] > 0.1


@given(st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=5))
def test_label_probabilities_are_a_softmax_in_the_battle_s_own_order(rows: list) -> None:
    logits = np.array(rows)
    ab = label_probabilities(logits, "ab")
    assert np.allclose(ab.sum(axis=1), 1) and np.allclose(np.log(ab[:, 0] / ab[:, 2]), logits[:, 0] - logits[:, 2])
    assert np.array_equal(label_probabilities(logits, "ba"), ab[:, [1, 0, 2]])


@given(arrays(np.float64, (5, 3), elements=st.floats(0, 1)))
def test_without_ties_the_sides_keep_their_proportion(p: np.ndarray) -> None:
    found = without_ties(p)
    assert (found[:, 2] == 0).all() and np.allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[:, 0] * p[:, 1], found[:, 1] * p[:, 0], atol=1e-12)
    assert np.array_equal(without_ties(swap_sides(p)), swap_sides(found)), "to the bit"
    assert np.allclose(without_ties(found), found, atol=1e-15)


def test_without_ties_what_is_missing_stays_missing_and_a_sure_tie_is_even() -> None:
    p = np.array([[np.nan] * 3, [0, 0, 1], [0.2, 0.2, 0.6]])
    assert np.isnan(without_ties(p)[0]).all() and without_ties(p)[1:].tolist() == [[0.5, 0.5, 0]] * 2


def test_accuracy_of_two_is_that_of_the_likelier_side_and_even_rows_count_half() -> None:
    p = without_ties(np.array([[0.6, 0.4, 0], [0.6, 0.4, 0], [0.1, 0.1, 0], [0, 1, 0]]))
    assert accuracy_of_two(log_loss_rows(p, np.array([0, 1, 0, 1]))) == (1 + 0 + 0.5 + 1) / 4


def test_baselines_and_standard_error():
    y = np.array([0, 0, 1, 2])
    metrics = score_metrics(np.full((4, 3), 1 / 3), y)
    assert metrics["val/log_loss"] == pytest.approx(np.log(3)) == metrics["baseline/log_loss_uniform"]
    assert metrics["val/log_loss_se"] == pytest.approx(0, abs=1e-15)
    assert metrics["baseline/log_loss_prior"] == pytest.approx(1.5 * np.log(2))
    assert score_metrics(np.empty((0, 3)), np.empty(0)) == {}
    assert "val/log_loss_se" not in score_metrics(P[:1], y[:1])
