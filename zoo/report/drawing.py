"""How pictures look: one style for all, as PNG of twice the pixels or as SVG for pages.

Colours can be told apart in greyscale and by people who are colour-blind (Okabe and Ito 2008), and beside them markers, dashes
or hatching say the same. On a page the colours are the page's own, so that a picture follows its dark mode.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

P = ParamSpec("P")

INK, BLUE, ORANGE, GREEN, GREY = "#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#767676"
FAINT = "#d9d9d9"
STYLES = ((INK, "o", "-"), (BLUE, "s", "--"), (ORANGE, "^", ":"))  # of lines: tell apart without colour
SHADES = (INK, BLUE, ORANGE, GREY, GREEN, "#b58900")  # of areas, told apart by HATCHES too
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
THEMED = {"#000000": "ink", INK: "ink", "#ffffff": "paper", BLUE: "blue", ORANGE: "orange", GREEN: "green", GREY: "grey"} | {
    FAINT: "line"
}
DPI = 220  # twice what a screen shows
SMALL = 8.5  # points
_RC = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": GREY,
    "axes.labelsize": 10,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "figure",
}
ROUND_TIMES = (
    *((1, "1 s"), (3, "3 s"), (10, "10 s"), (30, "30 s"), (60, "1 min"), (180, "3 min"), (600, "10 min"), (1800, "30 min")),
    *((3600, "1 h"), (10800, "3 h"), (32400, "9 h"), (86400, "1 d"), (259200, "3 d")),
)
BETWEEN = (  # of a range in which fewer than FEWEST_TICKS of them lie
    *((2, "2 s"), (5, "5 s"), (20, "20 s"), (120, "2 min"), (300, "5 min"), (1200, "20 min"), (2700, "45 min")),
    *((7200, "2 h"), (14400, "4 h"), (21600, "6 h"), (43200, "12 h"), (172800, "2 d")),
)
FEWEST_TICKS = 3


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(_RC)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws a figure, in the style of all."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return in_style


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def entitle(figure: Figure, what: str, of: str) -> None:
    """Head a figure.

    `what` it shows, and below, smaller, whom and which data it is `of`; long lines are broken.
    """
    width = figure.get_figwidth()
    lines = [*textwrap.wrap(what, int(9 * width)), *textwrap.wrap(of, int(13 * width))]
    heads = len(textwrap.wrap(what, int(9 * width)))
    figure.suptitle("\n".join(lines[:heads]), x=0.02, ha="left", fontsize=12, fontweight="bold", color=INK)
    first = figure.axes[0]
    if lines[heads:]:
        first.set_title("\n".join(lines[heads:]), loc="left", fontsize=9, color=GREY)


def png(figure: Figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str, said: str) -> str:
    """A figure as an SVG element that needs nothing else.

    `said`: what it shows, for those who do not see it. Text stays text, ids begin with `name` (several on one page must not
    share any), and colours are the page's. The same figure gives the same element.
    """
    from markupsafe import escape

    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(said)}"', 1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in THEMED.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return text


def round_ticks(axes: Axes, values: np.ndarray) -> None:
    """Put ticks at 1, 3, 10, 30 and so on to a logarithmic horizontal axis, as plain numbers.

    Only those that the values span.
    """
    low, high = float(values.min()) / 1.5, float(values.max()) * 1.5
    ticks = [m * 10.0**k for k in range(-9, 10) for m in (1, 3) if low <= m * 10.0**k <= high]
    axes.set_xticks(ticks, [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def round_times(axes: Axes, low: float, high: float) -> None:
    """Ticks of a logarithmic axis from `low` to `high` seconds, at times that people say."""
    ticks = [(seconds, label) for seconds, label in ROUND_TIMES if low <= seconds <= high]
    if len(ticks) < FEWEST_TICKS:
        ticks = sorted([*ticks, *((seconds, label) for seconds, label in BETWEEN if low <= seconds <= high)])
    axes.set_xticks([seconds for seconds, _ in ticks], [label for _, label in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def clock(axes: Axes, longest: float) -> None:
    """Ticks of a linear axis of seconds from 0 on, in the unit that reads well: `30 min`, `2 h`."""
    from matplotlib.ticker import MaxNLocator

    unit, name = (3600.0, "h") if longest >= 2 * 3600 else (60.0, "min") if longest >= 120 else (1.0, "s")
    steps = MaxNLocator(nbins=9, steps=[1, 2, 3, 5, 6, 10]).tick_values(0, longest / unit)
    shown = [step for step in steps if 0 <= step * unit <= longest * 1.02]
    axes.set_xticks([step * unit for step in shown], [f"{step:g} {name}" if step else "0" for step in shown])


# Places for a label around its point, in points: the nearest first, then with a line that leads to it.
_AROUND = tuple(
    (dx * distance, dy * distance)
    for distance in (8, 16, 26, 38, 52, 70)
    for dx, dy in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.3), (0, -1.3))
)
_LED = 12  # points from which on a line leads from a label to its point


def label_points(axes: Axes, points: Mapping[str, tuple[float, float]], avoid: Sequence[tuple[float, float]] = ()) -> None:
    """Write a name beside each point, where it covers no other name and no point.

    `points`: by name, in data coordinates; `avoid`: further ones. Call it last: it needs the axes as they will be.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    marks = [axes.transData.transform(point) for point in (*points.values(), *avoid)]
    taken: list[Bbox] = []
    for name, point in sorted(points.items(), key=lambda item: -item[1][1]):
        best: tuple[float, Any] | None = None
        for offset in _AROUND:
            label = _label(axes, name, point, offset)
            box = _text_box(figure, label)
            cost = _cost(box, frame, taken, marks)
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, label)
            else:
                label.remove()
            if cost == 0:
                break
        assert best is not None
        taken.append(_text_box(figure, best[1]))


def _label(axes: Axes, name: str, point: tuple[float, float], offset: tuple[float, float]) -> Any:
    dx, dy = offset
    across = "left" if dx > 0 else "right" if dx < 0 else "center"
    along = "bottom" if dy > 0 else "top" if dy < 0 else "center"
    led = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if np.hypot(dx, dy) > _LED else None
    label = axes.annotate(
        name, point, xytext=offset, textcoords="offset points", fontsize=SMALL, ha=across, va=along, arrowprops=led
    )
    label.set_in_layout(False)
    return label


def _text_box(figure: Figure, label: Any) -> Bbox:
    """Where a label's text is, in pixels, without its line."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    label.update_positions(renderer)
    box: Bbox = Text.get_window_extent(label, renderer)
    return box


def _cost(box: Bbox, frame: Bbox, taken: Sequence[Bbox], marks: Sequence[Any]) -> float:
    """How much a label's box covers: 0 where it is free and inside the frame."""
    around = 3.0
    covered = sum(1.0 for x, y in marks if box.x0 - around < x < box.x1 + around and box.y0 - around < y < box.y1 + around)
    covered += sum(4.0 for other in taken if box.overlaps(other))
    outside: float = (
        max(0.0, frame.x0 - box.x0) + max(0.0, box.x1 - frame.x1) + max(0.0, frame.y0 - box.y0) + max(0.0, box.y1 - frame.y1)
    )
    return covered + outside / 10
