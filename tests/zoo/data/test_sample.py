"""The generator: its files are usable, its true probabilities are true, and no side is favoured."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from zoo.data.battles import read_battles
from zoo.data.sample import TIE_STRENGTH, outcome_probabilities, sample_battles, write_sample
from zoo.data.splits import assign_folds
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import PROBABILITIES

ROWS = 1500


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "battles.csv.gz", ROWS, 3)


@pytest.fixture(scope="module")
def battles(written):
    return read_battles(written.path)


@pytest.fixture(scope="module")
def truth(written):
    return pd.read_csv(written.truth_path, dtype={"id": "str"})


def test_same_seed_same_rows_and_a_larger_sample_begins_with_the_smaller():
    small, p_small = sample_battles(30, 5)
    large, p_large = sample_battles(60, 5)
    pd.testing.assert_frame_equal(small, large[:30])
    assert (p_small == p_large[:30]).all()
    other, _ = sample_battles(30, 6)
    assert not set(other["id"]) & set(large["id"]) and (other["prompt"] != small["prompt"]).any()


def test_every_row_is_usable_and_the_awkward_ones_are_there(battles, written):
    assert len(battles.frame) == ROWS and battles.labelled and not battles.errors and not battles.extra_columns
    assert {p.kind for p in battles.problems} >= {"lone_surrogates"}
    frame = battles.frame
    answers = [*frame["response_a"], *frame["response_b"]]
    texts = [turn for turns in answers for turn in turns]
    assert None in texts and "" in texts and any("😀" in (text or "") for text in texts)
    assert (frame["response_a"] == frame["response_b"]).any() and (frame["prompt"].map(len) == 2).any()
    lengths = np.array([sum(len(turn or "") for turn in turns) for turns in answers])
    assert lengths.max() > 1500 and np.median(lengths) < 300


def test_prompts_repeat_so_that_folds_matter(battles):
    prompts = battles.frame["prompt"].map(json.dumps)
    assert prompts.nunique() < ROWS / 3
    assert np.bincount(assign_folds(battles.frame, 5)).min() > ROWS / 10


def test_truth_is_beside_the_file_and_gives_the_best_log_loss(battles, truth, written):
    assert written.truth_path.name == "battles.truth.csv" and list(truth["id"]) == list(battles.ids)
    p, y = truth[list(PROBABILITIES)].to_numpy(), battles.frame["label"].to_numpy()
    assert p.sum(axis=1) == pytest.approx(1)
    assert written.realised_log_loss == pytest.approx(log_loss_rows(p, y).mean())
    assert written.expected_log_loss == pytest.approx(-(p * np.log(p)).sum(axis=1).mean())
    assert 0.7 < written.expected_log_loss < 0.9
    assert written.label_shares == pytest.approx(np.bincount(y) / ROWS)


def test_labels_follow_the_true_probabilities(battles, truth):
    """Counts of outcomes against their expectation, over all rows and in each third by p_a; no third is off."""
    p, y = truth[list(PROBABILITIES)].to_numpy(), battles.frame["label"].to_numpy()
    for rows in (np.arange(ROWS), *np.array_split(np.argsort(p[:, 0], kind="stable"), 3)):
        expected = p[rows].sum(axis=0)
        assert chisquare(np.bincount(y[rows], minlength=3), expected).pvalue > 1e-4
    gap = log_loss_rows(p, y) + (p * np.log(p)).sum(axis=1)
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(ROWS)


def test_outcomes_are_davidsons_and_symmetric():
    for difference in (-3.0, 0.0, 0.5, 2.0):
        p_a, p_b, p_tie = outcome_probabilities(difference)
        assert p_a + p_b + p_tie == pytest.approx(1)
        assert outcome_probabilities(-difference) == pytest.approx([p_b, p_a, p_tie])
        assert p_tie == pytest.approx(TIE_STRENGTH * np.sqrt(p_a * p_b))  # Davidson (1970), equation 2.1
    assert np.log(p_a / p_b) == pytest.approx(2.0)


def test_no_side_is_favoured(truth):
    p = truth[list(PROBABILITIES)].to_numpy()
    difference = p[:, 0] - p[:, 1]
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(ROWS)
