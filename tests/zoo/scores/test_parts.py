"""Parts of rows beside the rest, agreement and calibration: invariants, and independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.scores.metrics import log_loss_rows, standard_error
from zoo.scores.parts import Part, against_rest, agreement, class_calibration, is_told, part_gains, part_losses


def drawn(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, whether each is inside, and groups that lie on both sides: (rows,) each."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, max(2, rows // 3), rows)
    values = rng.normal(size=rows) + rng.normal(size=rows)[groups]
    inside = rng.random(rows) < 0.4
    inside[:2] = True, False
    return values, inside, groups


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(8, 80), shift=st.floats(-5, 5))
def test_a_part_and_its_rest_are_each_other_s_opposite(seed: int, rows: int, shift: float) -> None:
    values, inside, groups = drawn(seed, rows)
    mean, error = against_rest(values, inside, groups)
    assert mean == pytest.approx(values[inside].mean() - values[~inside].mean())
    assert against_rest(values, ~inside, groups) == pytest.approx((-mean, error), nan_ok=True), "the other side says the same"
    assert against_rest(values + shift, inside, groups) == pytest.approx((mean, error), abs=1e-9, nan_ok=True)
    order = np.random.default_rng(seed).permutation(rows)
    assert against_rest(values[order], inside[order], groups[order]) == pytest.approx((mean, error), nan_ok=True)


def test_the_error_is_the_regression_s_clustered_one() -> None:
    """Oracle: least squares on the indicator with the sandwich of Liang and Zeger (1986), times G / (G - 1)."""
    values, inside, groups = drawn(3, 300)
    x = np.column_stack([np.ones(300), inside])
    bread = np.linalg.inv(x.T @ x)
    residual = values - x @ (bread @ x.T @ values)
    scores = np.stack([(x[groups == g] * residual[groups == g, None]).sum(axis=0) for g in np.unique(groups)])
    count = len(scores)
    covariance = count / (count - 1) * bread @ (scores.T @ scores) @ bread
    assert against_rest(values, inside, groups)[1] == pytest.approx(np.sqrt(covariance[1, 1]))


def test_parts_are_told_from_twenty_rows_on_and_where_they_differ() -> None:
    losses = np.tile([0.9, 1.1], 100)
    hard = np.arange(200) < 60
    losses[hard] += 1.0
    parts = [Part("kind", "hard", hard), Part("kind", "few", np.arange(200) < 19), Part("kind", "all", np.ones(200, bool))]
    found = {part.name: part for part in part_losses(losses, np.arange(200), parts)}
    assert set(found) == {"hard", "all"} and found["hard"].differs and found["hard"].rows == 60
    assert found["hard"].loss == pytest.approx(2.0) and found["hard"].against_rest == pytest.approx(1.0)
    assert found["all"].against_rest is None and not found["all"].differs
    assert found["all"].error == pytest.approx(standard_error(losses))
    assert not is_told(1.0, float("nan")) and not is_told(1.0, 0.0) and is_told(-1.0, 0.5)


def test_a_side_of_one_prompt_or_of_few_rows_tells_no_difference() -> None:
    """Its deviations sum to zero, however far the prompt is from others: with them a chance prompt would look sure."""
    losses, rest = np.tile([0.9, 1.1], 100), np.arange(200) >= 170
    losses[rest] += 0.3
    groups = np.where(rest, 170, np.arange(200))
    (part,) = part_losses(losses, groups, [Part("language", "en", ~rest)])
    assert part.against_rest == pytest.approx(-0.3) and np.isnan(part.against_rest_error) and not part.differs
    (part,) = part_losses(losses, groups, [Part("language", "fr", rest)])
    assert part.against_rest == pytest.approx(0.3) and np.isnan(part.against_rest_error) and np.isnan(part.error)
    few = np.arange(200) >= 181
    (part,) = part_losses(losses, np.arange(200), [Part("turns", "one", ~few)])
    assert part.against_rest is None and part.against_rest_error is None and not part.differs


def test_gains_are_of_the_rows_that_both_have() -> None:
    own, theirs = np.full(80, 1.0), np.full(80, 0.8)
    theirs[40:] = np.nan
    parts = [Part("half", "first", np.arange(80) < 40), Part("half", "second", np.arange(80) >= 40)]
    (gain,) = part_gains("other", own, theirs, np.arange(80), parts)
    assert (gain.name, gain.rows) == ("first", 40) and gain.difference == pytest.approx(-0.2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_agreement_is_symmetric_and_its_shares_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q, y, groups = rng.dirichlet((1, 1, 1), 90), rng.dirichlet((1, 1, 1), 90), rng.integers(0, 3, 90), np.arange(90) // 2
    one, other = agreement(("p", "q"), (p, q), y, groups), agreement(("q", "p"), (q, p), y, groups)
    assert (one.same, one.correlation, one.error) == pytest.approx((other.same, other.correlation, other.error))
    assert (one.first_right, one.second_right) == (other.second_right, other.first_right)
    assert one.difference == pytest.approx(-other.difference) and one.first_right + one.second_right <= 1
    apart = p.argmax(axis=1) != q.argmax(axis=1)
    assert one.difference == pytest.approx((log_loss_rows(p, y) - log_loss_rows(q, y))[apart].mean())
    same = agreement(("p", "p"), (p, p), y, groups)
    assert same.same == 1 and np.isnan(same.first_right) and np.isnan(same.difference)


def test_gaps_of_all_labels_cancel_and_shares_as_they_are_have_none() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet((2, 1, 1), 400), rng.integers(0, 3, 400)
    assert sum(each.gap for each in class_calibration(p, y, np.arange(400), "abt")) == pytest.approx(0)
    shares = np.tile(np.bincount(y, minlength=3) / 400, (400, 1))
    assert [each.gap for each in class_calibration(shares, y, np.arange(400), "abt")] == pytest.approx([0, 0, 0])
