"""Pictures of a study: how it went, what mattered, and log loss against seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.report.study import DRAWN, StudyView
from zoo.report.drawing import BLUE, ORANGE, clock, entitle, one_panel, png, styled
from zoo.report.study_figures import best_so_far, importance_bars, legend_below, near_the_best
from zoo.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KNOWN, OTHER = ORANGE, BLUE


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
    best_so_far(axes, number, loss)
    axes.set(xlabel="trial", ylabel="log loss out of fold, nats")
    near_the_best(axes, loss)
    legend_below(axes)


def _importance(axes: Axes, view: StudyView) -> None:
    importance_bars(axes, view.importance)


def _seconds(axes: Axes, view: StudyView) -> None:
    loss, known = _losses(view)
    seconds = np.array([trial.seconds for trial in view.trials])
    _dots(axes, seconds, loss, known)
    clock(axes, seconds.max())
    axes.set(xlabel="predicted time, without the margin", ylabel="log loss out of fold, nats")
    near_the_best(axes, loss)
    legend_below(axes)


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
