"""What pictures of studies share: the best so far, what mattered, and a frame near the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from zoo.report.drawing import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def best_so_far(axes: Axes, number: np.ndarray, loss: np.ndarray) -> None:
    """A line of the lowest log loss up to each trial."""
    axes.step(number, np.minimum.accumulate(loss), where="post", color=INK, linewidth=1.2, label="best so far")


def importance_bars(axes: Axes, importance: Mapping[str, float]) -> None:
    """Shares of the variance, the largest on top."""
    names, shares = list(importance), list(importance.values())
    axes.barh(names, shares, color=BLUE)
    axes.invert_yaxis()
    for place, share in enumerate(shares):
        axes.annotate(f"{share:.0%}", (share, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set(xlabel="share of the variance of log loss (functional ANOVA)", xlim=(0, max(shares) * 1.12))


def legend_below(axes: Axes) -> None:
    """The legend, below the frame: inside it would hide trials."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def near_the_best(axes: Axes, loss: np.ndarray) -> None:
    """Cut off what is beyond the upper quartile by far, and say how many that is.

    The worst trials would press the others flat.
    """
    low, high = np.quantile(loss, (0.0, 0.75))
    top = high + 1.5 * max(high - low, 1e-4)
    beyond = int((loss > top).sum())
    axes.set_ylim(low - 0.1 * (top - low), top)
    if beyond:
        axes.set_title(f"{beyond} worse, above the frame", loc="right")
    axes.grid()
