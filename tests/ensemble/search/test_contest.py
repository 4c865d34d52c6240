"""The contest between rehearsed candidates: who is taken, and that what is reported does not flatter."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.members.table import balanced_folds
from ensemble.search.contest import FEW_LABELS, Contest

NAMES = ("best_single", "log_pool", "search")


def contest(losses: dict[str, np.ndarray], *, seconds: tuple[float, ...] | None = None, parsimony: bool = False) -> Contest:
    """Of losses by name, each (repeats, rows)."""
    stacked = np.stack(list(losses.values()))
    groups = np.arange(stacked.shape[2])
    folds = np.stack([balanced_folds(groups, repeat=repeat) for repeat in range(stacked.shape[1])])
    prices = np.array(seconds or (1.0,) * len(losses))
    return Contest(tuple(losses), stacked, folds, groups, prices, parsimony)


def apart(rows: int, difference: float, error: float, *, seed: int = 0) -> np.ndarray:
    """Losses (rows,) around 1 whose mean is beyond 1 by `difference` with a standard error of `error`."""
    noise = np.random.default_rng(seed).normal(size=rows)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return 1 + difference + noise * error * np.sqrt(rows)


@pytest.mark.parametrize(("difference", "winner"), [(-0.019, "log_pool"), (-0.021, "search"), (0.02, "log_pool")])
def test_on_few_rows_the_log_pool_stays_unless_a_search_wins_by_two_errors(difference, winner):
    rows = FEW_LABELS - 1
    losses = {
        "best_single": np.full((1, rows), 1.2),
        "log_pool": np.ones((1, rows)),
        "search": apart(rows, difference, 0.01)[None],
    }
    found = contest(losses)
    assert found.winner == winner
    assert ("few" in found.why()) == (winner == "log_pool")


@pytest.mark.parametrize(("difference", "winner"), [(-0.009, "best_single"), (-0.011, "search"), (0.02, "best_single")])
def test_on_many_rows_the_least_loss_wins_and_ties_go_to_the_simpler(difference, winner):
    losses = {"best_single": np.ones((1, FEW_LABELS)), "search": apart(FEW_LABELS, difference, 0.01)[None]}
    assert contest(losses | {"log_pool": np.full((1, FEW_LABELS), 1.3)}).winner == winner


def test_what_one_division_into_folds_says_and_the_others_do_not_is_no_win():
    rows = 500
    log_pool = np.ones((3, rows))
    lucky = log_pool + np.array([[-0.06], [0.01], [0.02]])
    steady = log_pool + np.array([[-0.011], [-0.010], [-0.009]])
    assert lucky.mean() == pytest.approx(steady.mean())
    assert contest({"log_pool": log_pool, "search": lucky}).winner == "log_pool"
    assert contest({"log_pool": log_pool, "search": steady}).winner == "search"


def test_of_single_members_alike_the_reported_one_is_chosen_without_the_fold():
    """Their order, the best on all rows first, would choose by the fold's own rows: the promise would be their least mean."""
    rows, error = FEW_LABELS, 0.01
    noise = np.random.default_rng(3).normal(size=(12, rows)) * error * np.sqrt(rows)
    singles = sorted((1 + one for one in noise), key=lambda one: float(one.mean()))
    losses = {f"m_{place} alone": one[None] for place, one in enumerate(singles)}
    found = contest(losses, seconds=(1.0,) * 12)
    by_other_folds = np.empty(rows)
    for fold in np.unique(found.folds[0]):
        held = found.folds[0] == fold
        by_other_folds[held] = min(singles, key=lambda one: float(one[~held].mean()))[held]
    assert found.winner == "m_0 alone"
    np.testing.assert_allclose(found.reported()[0], by_other_folds)
    assert found.reported().mean() > singles[0].mean() + error
    assert found.why().startswith("m_0 alone: ")


def test_rows_of_one_prompt_are_no_independent_evidence():
    rows = 400
    one = np.repeat(apart(rows // 10, -0.016, 0.02), 10)[None]
    losses = {"log_pool": np.ones((1, rows)), "search": one}
    assert contest(losses).winner == "search"
    groups = np.repeat(np.arange(rows // 10), 10)
    clustered = Contest(tuple(losses), np.stack(list(losses.values())), balanced_folds(groups)[None], groups, np.ones(2))
    assert clustered.winner == "log_pool"


def test_parsimony_takes_the_cheapest_that_is_as_good():
    rows = 3_000
    losses = {"log_pool": np.ones((1, rows)), "search": apart(rows, 0.004, 0.005)[None], "greedy_25": np.full((1, rows), 1.1)}
    for seconds, winner in (((100.0, 60.0, 1.0), "search"), ((100.0, 96.0, 1.0), "log_pool")):
        assert contest(losses, seconds=seconds, parsimony=True).winner == winner
        assert contest(losses, seconds=seconds).winner == "log_pool"
    assert "without --parsimony" in contest(losses, seconds=(100.0, 60.0, 1.0), parsimony=True).why()


def test_what_is_reported_is_the_choice_of_the_other_folds():
    rows = 3_000
    rng = np.random.default_rng(1)
    losses = {name: 1 + rng.normal(size=(1, rows)) * 3 for name in NAMES}
    found = contest(losses)
    expected = np.empty(rows)
    for fold in range(5):
        held = found.folds[0] == fold
        other = Contest(NAMES, found.losses[:, :, ~held], found.folds[:, ~held], found.groups[~held], found.seconds)
        expected[held] = losses[other.winner][0, held]
    np.testing.assert_array_equal(found.reported(), expected[None])


def test_a_choice_among_equals_does_not_flatter_what_is_reported():
    """Twelve candidates of the same worth: the winner's own mean is the luckiest of them, the reported one is not."""
    rows, own, reported = 2_500, [], []
    rng = np.random.default_rng(0)
    for _ in range(60):
        losses = {name: 1 + rng.normal(size=(1, rows)) for name in ("log_pool", *(f"c{k}" for k in range(11)))}
        found = contest(losses)
        least = found.means.mean(axis=1).min()
        own.append(least)
        reported.append(found.reported().mean())
    error = np.std(reported) / np.sqrt(60)
    assert np.mean(own) < 1 - 5 * error
    assert abs(np.mean(reported) - 1) < 3.5 * error


def test_a_single_prompt_says_nothing_of_errors_and_the_default_stays():
    losses = {"log_pool": np.ones((1, 6)), "search": np.full((1, 6), 0.5)}
    one = Contest(tuple(losses), np.stack(list(losses.values())), np.array([[0, 1, 2, 3, 4, 0]]), np.zeros(6), np.ones(2))
    assert one.winner == "log_pool"
