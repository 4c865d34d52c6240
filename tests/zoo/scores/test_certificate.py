"""Certificates: a judge that knows something is below the prior, one that knows nothing is refused, whatever lengths say."""

import numpy as np
import pytest

from zoo.scores import certificate as c
from zoo.scores.certificate import Certificate, certify, group_folds, longer_wins, verdict_labels
from zoo.scores.metrics import log_loss_rows

ROWS, PROMPTS = 1200, 60


def judged(skill: float, seed: int = 0) -> tuple[Certificate, np.ndarray, np.ndarray]:
    """Verdicts that are the human label with probability `skill`, else drawn; people like length."""
    rng = np.random.default_rng(seed)
    groups, lengths = rng.integers(0, PROMPTS, ROWS), rng.normal(size=ROWS)
    y = np.where(rng.random(ROWS) < 0.3, 2, (rng.random(ROWS) > 1 / (1 + np.exp(-lengths))).astype(int))
    said = np.where(rng.random(ROWS) < skill, y, rng.integers(0, 3, ROWS))
    return certify(np.eye(3)[said], lengths, y, groups), y, said


def test_a_judge_that_knows_something_passes_and_its_map_is_better_than_itself() -> None:
    found, y, said = judged(0.5)
    loss = {step.name: step.log_loss for step in found.steps}
    assert found.fault == "" and loss[c.MAPPED] < loss[c.PRIOR] < loss[c.RAW]
    assert loss[c.WITH_LENGTH] < loss[c.MAPPED] < loss[c.SMOOTHED] + 0.01 and loss[c.UNIFORM] == pytest.approx(np.log(3))
    raw = log_loss_rows(0.95 * np.eye(3)[said] + 0.05 / 3, y).mean()
    assert loss[c.RAW] == pytest.approx(raw) and (found.rows, found.prompts) == (ROWS, PROMPTS)
    assert found.agreement == pytest.approx((said == y).mean()) and found.human_ties == pytest.approx((y == 2).mean())
    assert found.step(c.MAPPED).gain == pytest.approx(loss[c.PRIOR] - loss[c.MAPPED])


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_knows_nothing_is_refused_though_length_says_something(seed: int) -> None:
    found, _, _ = judged(0.0, seed)
    assert "is not below the prior's" in found.fault
    assert found.step(c.WITH_LENGTH).log_loss < found.step(c.PRIOR).log_loss, "length alone would have passed it"


def test_humans_own_labels_are_no_judge() -> None:
    found, _, _ = judged(1.0)
    assert "these are their labels" in found.fault


def test_folds_are_of_whole_groups_and_alike() -> None:
    groups = np.repeat(np.arange(22) * 1000, 3)
    folds = group_folds(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert np.ptp(np.bincount(folds) // 3) <= 1


def test_verdicts_without_a_lead_are_ties_and_lengths_count_by_probability() -> None:
    p = np.array([[0.5, 0.5, 0.0], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    assert verdict_labels(p).tolist() == [2, 0, 2]
    assert longer_wins(p, np.array([0.0, 1.0, -1.0])) == pytest.approx((0.6 + 0.2) / (0.9 + 0.3))
    assert longer_wins(np.array([[0.0, 0.0, 1.0]]), np.array([1.0])) is None
