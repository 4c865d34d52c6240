"""The style of pictures: labels apart from each other, times that people say, and SVG that a page can hold."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.text import Annotation

from zoo.report.drawing import INK, THEMED, clock, entitle, label_points, one_panel, png, styled, svg
from zoo.report.figures import confusion, cost_figure, curves_figure, reliability


@pytest.mark.parametrize("seed", range(4))
def test_labels_cover_neither_each_other_nor_a_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    figure, axes = one_panel(6.5, 5)
    points = {f"some-model-{place}b@ab-{place}": tuple(rng.uniform(0.1, 0.9, 2)) for place in range(9)}
    axes.plot(*zip(*points.values(), strict=True), "o")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    entitle(figure, "Title", "of whom")
    label_points(axes, points)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [super(Annotation, text).get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == 9 and {text.get_text() for text in axes.texts} == set(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = axes.get_window_extent(renderer)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize(("longest", "last"), [(40, "s"), (1_500, "min"), (32_400, "h")])
def test_times_have_the_unit_that_people_say(longest: float, last: str) -> None:
    _, axes = one_panel(6, 3)
    clock(axes, longest)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "0" and labels[-1].endswith(f" {last}") and len(labels) == len(set(labels)) >= 3


def test_a_figure_says_whom_and_what_it_is_of() -> None:
    p, y = np.full((60, 3), 1 / 3), np.arange(60) % 3
    for figure in (
        reliability(p, y, of="some@ab, battles.csv"),
        confusion(p, y, of="some@ab, battles.csv"),
        cost_figure({"a@ab": (0.5, 1.0, 0.01)}, None, target="t4x2", rows=60, of="some@ab, battles.csv"),
        curves_figure({"train/loss": [(0, 1.0), (1, 0.9)]}, of="some@ab, battles.csv"),
    ):
        assert figure is not None
        assert figure.axes[0].get_title(loc="left").startswith("some@ab, battles.csv") and figure.get_suptitle()
        assert figure.axes[0].spines["left"].get_edgecolor() == pytest.approx((0x1B / 255,) * 3 + (1.0,)), INK


def test_the_cost_figure_says_of_what_its_bars_are() -> None:
    points = {"a@ab": (0.5, 1.0, 0.0), "b@ab": (0.1, 1.1, 0.004)}
    for best, said in (("a@ab", "paired difference from a@ab"), ("", "standard error of each")):
        (axes,) = cost_figure(points, None, target="t4x2", rows=60, best=best).axes
        assert said in axes.get_title(loc="left")


def test_an_svg_is_the_same_again_and_takes_the_page_s_colours() -> None:
    p, y = np.full((60, 3), 1 / 3), np.arange(60) % 3
    first, again = (svg(reliability(p, y), "one", 'said "so" <b>') for _ in range(2))
    other = svg(reliability(p, y), "two", "said")
    assert first == again and "&lt;b&gt;" in first and 'role="img"' in first
    assert not re.search("|".join(f": {colour}" for colour in THEMED), first) and "var(--blue)" in first
    ids = [set(re.findall(r'\bid="([^"]+)"', element)) for element in (first, other)]
    assert ids[0] and not ids[0] & ids[1], "two on one page share no id"
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', first)) <= ids[0]


def test_pictures_have_twice_the_pixels_and_style_leaves_no_trace() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)

    @styled
    def drawn():  # type: ignore[no-untyped-def]
        return one_panel(2, 1)[0]

    content = png(drawn())
    width = int.from_bytes(content[16:20], "big")
    assert width == 440 and content == png(drawn())
    assert dict(matplotlib.rcParams) == before
