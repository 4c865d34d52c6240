"""Figures of runs: reliability, confusion, log loss by length, curves, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.cost.price import COMPETITION_ROWS
from zoo.report.drawing import (
    GREY,
    INK,
    ORANGE,
    SMALL,
    STYLES,
    entitle,
    label_points,
    one_panel,
    png,
    round_ticks,
    round_times,
    styled,
)
from zoo.scores.metric_names import find_metric
from zoo.scores.metrics import log_loss_rows, standard_error, uniform_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("A wins", "B wins", "tie")
FULL = 0.55  # share from which on a cell of the confusion is dark


def score_figures(
    p: np.ndarray, y: np.ndarray, characters: np.ndarray, groups: np.ndarray, *, ties: bool = True, of: str = ""
) -> dict[str, bytes]:
    """PNG files by name, from probabilities (rows, 3) and labels 0, 1, 2 (rows,).

    Lengths of the battles and their prompts' `groups`, by which errors go, have shape (rows,). Without
    `ties` there are two outcomes to draw. `of`: member and data, for titles.
    """
    figures = {
        "reliability": reliability(p, y, ties=ties, of=of),
        "confusion": confusion(p, y, ties=ties, of=of),
        "log_loss_by_length": by_length(p, y, characters, groups, ties=ties, of=of),
    }
    return {f"{name}.png": png(figure) for name, figure in figures.items()}


def curve_figures(curves: Mapping[str, Sequence[tuple[int, float]]], *, of: str = "") -> dict[str, bytes]:
    """`curves.png`: a training's curves over its steps; nothing where no curve has a point."""
    figure = curves_figure(curves, of=of)
    return {} if figure is None else {"curves.png": png(figure)}


@styled
def _curves(panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[int, float]]]]], of: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 1.3 + 2.2 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (label, curves) in zip(grid, panels, strict=True):
        for place, (name, points) in enumerate(curves.items()):
            color, marker, line = STYLES[place % len(STYLES)]
            few = marker if len(points) <= 20 else None
            axes.plot(*zip(*points, strict=True), color=color, marker=few, linestyle=line, label=name)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.set_ylabel(label)
        axes.grid(axis="y")
        if len(curves) > 1:
            axes.legend()
    grid[-1].set_xlabel("optimizer step")
    entitle(figure, "Training curves", of)
    return figure


def curves_figure(curves: Mapping[str, Sequence[tuple[int, float]]], *, of: str = "") -> Figure | None:
    """A training's curves over its steps.

    The log losses share a panel; every other quantity has one below. None where no curve has a point.
    """
    losses = {name: points for name, points in curves.items() if "loss" in name and points}
    others = {name: points for name, points in curves.items() if "loss" not in name and points}
    panels = [("log loss, nats", losses)] if losses else []
    panels += [(_with_unit(name), {name: points}) for name, points in others.items()]
    return _curves(panels, of) if panels else None


def _with_unit(name: str) -> str:
    """A curve's name without its prefix, with the unit that its metric has."""
    metric = find_metric(name.removeprefix("curve/"))
    short = name.rpartition("/")[2].replace("_", " ")
    return f"{short}, {metric.unit}" if metric and metric.unit else short


def outcomes(*, ties: bool) -> tuple[str, ...]:
    """Names of the outcomes that battles can have."""
    return NAMES if ties else NAMES[:2]


def reliability_points(predicted: np.ndarray, happened: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean prediction, share that happened, and rows, of bins of equal numbers of rows.

    The shape is (bins, 3), with fewer bins for few rows.
    """
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(bins, max(1, len(order) // 10)))
    return np.array([(predicted[part].mean(), happened[part].mean(), len(part)) for part in parts if len(part)])


@styled
def reliability(p: np.ndarray, y: np.ndarray, *, ties: bool = True, of: str = "") -> Figure:
    """Share that happened against the predicted probability, a line a label.

    Bars are one standard error.
    """
    figure, axes = one_panel(5.2, 5.4)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.annotate("as predicted", (0.98, 0.98), ha="right", va="bottom", rotation=45, rotation_mode="anchor", color=GREY,
                  fontsize=SMALL)  # fmt: skip
    for label, (name, (color, marker, line)) in enumerate(zip(outcomes(ties=ties), STYLES, strict=False)):
        points = reliability_points(p[:, label], y == label)
        error = np.sqrt(points[:, 1] * (1 - points[:, 1]) / points[:, 2])
        axes.errorbar(points[:, 0], points[:, 1], yerr=error, label=name, color=color, marker=marker, linestyle=line, capsize=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share that happened", aspect="equal")
    axes.legend(loc="upper left")
    entitle(figure, f"Reliability, {len(y):,} rows", of)
    return figure


@styled
def by_length(
    p: np.ndarray, y: np.ndarray, characters: np.ndarray, groups: np.ndarray, bins: int = 8, *, ties: bool = True, of: str = ""
) -> Figure:
    """Mean log loss by the battles' length, with one standard error, by prompts.

    Bins of equal numbers of rows; guessing for scale.
    """
    losses = log_loss_rows(p, y)
    parts = [part for part in np.array_split(np.argsort(characters, kind="stable"), min(bins, len(y))) if len(part)]
    means = np.array([losses[part].mean() for part in parts])
    errors = np.nan_to_num([standard_error(losses[part], groups[part]) for part in parts])
    lengths = np.array([max(1.0, float(np.median(characters[part]))) for part in parts])
    figure, axes = one_panel(6, 4.4)
    axes.errorbar(lengths, means, yerr=errors, color=INK, marker="o", capsize=3, linewidth=2)
    guessing = uniform_loss(ties=ties)
    axes.axhline(guessing, color=GREY, linestyle="--", linewidth=1)
    axes.annotate("guessing", (0.99, guessing), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY)
    axes.set(xscale="log", xlabel="characters of a battle", ylabel="log loss, nats")
    round_ticks(axes, lengths)
    entitle(figure, f"Log loss by length, {len(y):,} rows", of)
    return figure


@styled
def cost_figure(
    points: Mapping[str, tuple[float, float, float]],
    plan: tuple[float, float, float] | None,
    *,
    target: str,
    rows: int,
    of: str = "",
    best: str = "",
) -> Figure:
    """Log loss against the time for 25,000 rows: a point a member, a star for the plan.

    `points`: name -> (hours, log loss, standard error), all on about `rows` rows of one data set; `plan` likewise. `best`: from
    which of them the members' errors are paired differences; empty where each is its own.
    """
    figure, axes = one_panel(6.5, 5.2)
    for hours, loss, error in points.values():
        axes.errorbar(3600 * hours, loss, yerr=error, color=INK, ecolor=GREY, marker="o", capsize=2, linestyle="none")
    if plan:
        style: dict[str, Any] = {"color": ORANGE, "marker": "*", "markersize": 16, "capsize": 2, "linestyle": "none"}
        axes.errorbar(3600 * plan[0], plan[1], yerr=plan[2], **style)
    seconds = np.array([3600 * hours for hours, _, _ in (*points.values(), *([plan] if plan else []))])
    axes.margins(y=0.15)
    axes.set(xscale="log", xlabel=f"time for {COMPETITION_ROWS:,} rows on {target}", ylabel="log loss out of fold, nats")
    round_times(axes, seconds.min() / 1.8, seconds.max() * 1.8)
    axes.grid()
    bars = f"bars: standard error of the paired difference from {best}" if best else "bars: standard error of each"
    entitle(figure, f"Cost against log loss, {rows:,} rows", f"{of}{'; ' if of else ''}{bars}")
    places = {name: (3600 * hours, loss) for name, (hours, loss, _) in points.items()}
    label_points(axes, places | ({"this plan": (3600 * plan[0], plan[1])} if plan else {}))
    return figure


@styled
def confusion(p: np.ndarray, y: np.ndarray, *, ties: bool = True, of: str = "") -> Figure:
    """Rows by true label and most probable label, with shares of each true label."""
    from matplotlib.patches import Rectangle

    names = outcomes(ties=ties)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (y, p[:, : len(names)].argmax(axis=1)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = one_panel(5.2, 5.4)
    for truth in range(len(names)):
        for guess in range(len(names)):
            share = float(shares[truth, guess])
            axes.add_patch(Rectangle((guess - 0.5, truth - 0.5), 1, 1, facecolor=INK, alpha=share, edgecolor="none"))
            text = f"{counts[truth, guess]:,}\n{share:.0%}"
            axes.text(guess, truth, text, ha="center", va="center", color="#ffffff" if share > FULL else INK, fontsize=14)
    axes.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names, aspect="equal")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="most probable", ylabel="true")
    axes.spines[["top", "right"]].set_visible(True)
    entitle(figure, f"Confusion, {len(y):,} rows", of)
    return figure
