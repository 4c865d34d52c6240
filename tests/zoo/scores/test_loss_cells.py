"""Where held-out loss is worst: what chance explains is no reason to ask more of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.scores.loss_cells import ALPHA, loss_cells


def rows(seed: int, effects: list[float], prompts: int = 30, each: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Losses of battles of prompts in cells with those effects; the battles of a prompt hang together."""
    rng = np.random.default_rng(seed)
    cells = [name for name in range(len(effects)) for _ in range(prompts)]
    of_prompts = 1 + np.array(effects)[cells] + rng.normal(0, 0.3, len(cells))
    losses = np.repeat(of_prompts, each) + rng.normal(0, 0.05, len(cells) * each)
    return losses, np.repeat(np.arange(len(cells)), each), [f"c{cell}" for cell in np.repeat(cells, each)]


def test_cells_that_differ_are_found_and_drawn_towards_the_mean() -> None:
    found = loss_cells(*rows(0, [0, 0, 0.5, -0.5, 0]))
    assert found.differ and found.table["loss"].idxmax() == "c2"
    moved = (found.table["loss"] - found.mean) / (found.table["mean"] - found.mean)
    assert ((moved > 0) & (moved < 1)).all()
    excess = found.excess(["c2", "c3", "unknown"])
    assert excess[0] == pytest.approx(found.table["loss"]["c2"] - found.mean) and excess[1:].tolist() == [0, 0]


def test_cells_that_do_not_differ_are_told_apart_as_often_as_chance_does() -> None:
    told = sum(loss_cells(*rows(seed, [0] * 8)).differ for seed in range(200))
    assert told <= 200 * ALPHA + 3 * np.sqrt(200 * ALPHA)  # battles of a prompt taken for independent would tell far more


def test_a_small_cell_is_drawn_further() -> None:
    losses, groups, cells = rows(1, [0, 0.4, -0.4, 0.4])
    keep = np.array([cell != "c3" or group % 30 < 3 for group, cell in zip(groups, cells, strict=True)])
    found = loss_cells(losses[keep], groups[keep], [cell for cell, kept in zip(cells, keep, strict=True) if kept]).table
    kept = (found["loss"] - found["loss"].mean()) / (found["mean"] - found["loss"].mean())
    assert found["prompts"]["c3"] == 3 and abs(kept["c3"]) < abs(kept["c1"])


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 6)), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_any_rows_have_cells(losses: list[tuple[float, int]], cells: int) -> None:
    values, groups = np.array([loss for loss, _ in losses]), np.array([group for _, group in losses])
    found = loss_cells(values, groups, [group % cells for group in groups])
    assert 0 <= found.chance <= 1 and np.isfinite(found.table["loss"]).all()
    assert (found.excess([*range(cells)]) >= 0).all() and found.table["rows"].sum() == len(losses)
