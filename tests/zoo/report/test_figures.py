"""Figures hold every row, and draw what there is."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.report.drawing import png
from zoo.report.figures import (
    by_length,
    confusion,
    cost_figure,
    curve_figures,
    reliability,
    reliability_points,
    score_figures,
)


def test_figures_hold_every_row() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet((1, 1, 1), size=997)
    y = np.array([rng.choice(3, p=row) for row in p])
    points = reliability_points(p[:, 0], y == 0)
    assert points[:, 2].sum() == 997
    assert np.allclose((points[:, 0] * points[:, 2]).sum(), p[:, 0].sum())
    assert np.abs(points[:, 0] - points[:, 1]).max() < 0.15, "drawn from p itself: calibrated"
    lengths = rng.integers(1, 9999, size=997)
    figures = score_figures(p, y, lengths, np.arange(len(y)))
    assert figures == score_figures(p, y, lengths, np.arange(len(y)))
    assert all(content.startswith(b"\x89PNG") and len(content) > 5000 for content in figures.values())
    assert score_figures(p[:1], y[:1], lengths[:1], np.zeros(1, dtype=np.int64)), "one row is enough"


def test_figures_of_curves_and_costs() -> None:
    curves = {"train/loss": [(0, 1.1), (5, 1.0)], "val/log_loss": [(0, 1.09)], "train/learning_rate": [(0, 1e-4), (5, 0.0)]}
    assert list(curve_figures(curves)) == ["curves.png"] and curve_figures({}) == {}
    assert curve_figures({"train/loss": []}) == {}, "a curve without points draws nothing"
    points = {"a@ab": (0.01, 1.0, 0.01), "b@ab": (3.0, 0.9, 0.01)}
    for plan in (None, (3.1, 0.88, 0.01)):
        assert png(cost_figure(points, plan, target="t4x2", rows=480)).startswith(b"\x89PNG")


@pytest.mark.parametrize(("ties", "outcomes"), [(True, 3), (False, 2)])
def test_figures_draw_the_outcomes_that_there_are(ties: bool, outcomes: int) -> None:
    y, p = np.arange(100) % outcomes, np.full((100, 3), 1 / outcomes)
    (lengths,) = by_length(p, y, np.arange(100), np.arange(100), ties=ties).axes
    (guessing,) = (text for text in lengths.texts if text.get_text() == "guessing")
    assert guessing.xy[1] == pytest.approx(np.log(outcomes)), "where uniform probabilities are"
    assert len(reliability(p, y, ties=ties).axes[0].get_legend().get_texts()) == outcomes
    (cells,) = confusion(p, y, ties=ties).axes
    assert len(cells.texts) == outcomes**2 and len(cells.get_xticklabels()) == outcomes
