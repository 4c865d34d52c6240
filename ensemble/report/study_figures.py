"""Pictures of a study: how it went, what mattered, and log loss against seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.report.study import DRAWN, StudyView
from zoo.report.drawing import BLUE, INK, ORANGE, clock, entitle, one_panel, png, styled
from zoo.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KNOWN, OTHER, BEST = ORANGE, BLUE, INK


def draw_study(view: StudyView, folder: Path) -> list[Path]:
    """Write FILES into `folder`, but for what did not vary; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    empty: dict[Callable[[Any, StudyView], None], bool] = {_importance: not view.importance, _seconds: not view.has_seconds}
    pictures = {name: draw for name, draw in FILES.items() if not empty.get(draw)}
    return [_write(folder / name, draw, view) for name, draw in pictures.items()]


def _write(path: Path, draw: Callable[[Any, StudyView], None], view: StudyView) -> Path:
    write_atomic(path, png(_figure(draw, view)))
    return path


@styled
def _figure(draw: Callable[[Any, StudyView], None], view: StudyView) -> Figure:
    figure, axes = one_panel(8, 5)
    draw(axes, view)
    entitle(figure, TITLES[draw], view.name)
    return figure


def _history(axes: Axes, view: StudyView) -> None:
    loss, known = _losses(view)
    number = np.array([trial.number for trial in view.trials])
    _dots(axes, number, loss, known)
    axes.step(number, np.minimum.accumulate(loss), where="post", color=BEST, linewidth=1.2, label="best so far")
    axes.set(xlabel="trial", ylabel="log loss out of fold, nats")
    _near_the_best(axes, loss)
    _explain(axes)


def _importance(axes: Axes, view: StudyView) -> None:
    names, shares = list(view.importance), list(view.importance.values())
    axes.barh(names, shares, color=OTHER)
    axes.invert_yaxis()
    for place, share in enumerate(shares):
        axes.annotate(f"{share:.0%}", (share, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set(xlabel="share of the variance of log loss (functional ANOVA)", xlim=(0, max(shares) * 1.12))


def _seconds(axes: Axes, view: StudyView) -> None:
    loss, known = _losses(view)
    seconds = np.array([trial.seconds for trial in view.trials])
    _dots(axes, seconds, loss, known)
    clock(axes, seconds.max())
    axes.set(xlabel="predicted time, without the margin", ylabel="log loss out of fold, nats")
    _near_the_best(axes, loss)
    _explain(axes)


def _losses(view: StudyView) -> tuple[np.ndarray, np.ndarray]:
    """Log loss of each trial, and whether its plan was known beforehand: (trials,) each.

    Their standard errors are not drawn: they are of rows that all trials share, so that trials differ by far less.
    """
    trials = view.trials
    return np.array([trial.log_loss for trial in trials]), np.array([trial.proposed_by != DRAWN for trial in trials])


def _dots(axes: Axes, x: np.ndarray, loss: np.ndarray, known: np.ndarray) -> None:
    for mask, marker, colour, label in ((~known, "o", OTHER, "drawn by Optuna"), (known, "^", KNOWN, "known beforehand")):
        if mask.any():
            axes.plot(x[mask], loss[mask], marker, color=colour, markersize=5, label=label, zorder=2)


def _explain(axes: Axes) -> None:
    """The legend, below the frame: inside it would hide trials."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(loc="outside lower center", ncols=3)


def _near_the_best(axes: Axes, loss: np.ndarray) -> None:
    """The worst trials would press the others flat: what is beyond the upper quartile by far is cut off, and said."""
    low, high = np.quantile(loss, (0.0, 0.75))
    top = high + 1.5 * max(high - low, 1e-4)
    beyond = int((loss > top).sum())
    axes.set_ylim(low - 0.1 * (top - low), top)
    if beyond:
        axes.set_title(f"{beyond} worse, above the frame", loc="right")
    axes.grid()


TITLES: dict[Callable[[Any, StudyView], None], str] = {
    _history: "How the study went",
    _importance: "What mattered",
    _seconds: "Log loss against time",
}
FILES: dict[str, Callable[[Any, StudyView], None]] = {
    "study-history.png": _history,
    "study-importance.png": _importance,
    "study-seconds.png": _seconds,
}
