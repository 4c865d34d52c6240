"""Figures of runs: reliability, confusion, log loss by length, curves, cost.

All are readable in greyscale and small.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.cost.price import COMPETITION_ROWS
from zoo.scores.metrics import log_loss_rows, standard_error, uniform_loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("A wins", "B wins", "tie")
STYLES = (("#1b1b1b", "o", "-"), ("#0072b2", "s", "--"), ("#d55e00", "^", ":"))  # tell apart without colour


def score_figures(p: np.ndarray, y: np.ndarray, characters: np.ndarray, *, ties: bool = True) -> dict[str, bytes]:
    """PNG files by name, from probabilities (rows, 3) and labels 0, 1, 2 (rows,).

    Lengths of the battles have shape (rows,). Without `ties` there are two outcomes to draw.
    """
    figures = {
        "reliability": reliability(p, y, ties=ties),
        "confusion": confusion(p, y, ties=ties),
        "log_loss_by_length": by_length(p, y, characters, ties=ties),
    }
    return {f"{name}.png": png(figure) for name, figure in figures.items()}


def curve_figures(curves: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, bytes]:
    """`curves.png`: a training's curves over its steps.

    The log losses share a panel; every other quantity has one below.
    """
    losses = {name: points for name, points in curves.items() if "loss" in name and points}
    others = {name: points for name, points in curves.items() if "loss" not in name and points}
    panels = ([("nats a battle", losses)] if losses else []) + [(name, {name: points}) for name, points in others.items()]
    return {"curves.png": png(_panels(panels))} if panels else {}


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


def reliability(p: np.ndarray, y: np.ndarray, *, ties: bool = True) -> Figure:
    """Share that happened against the predicted probability, a line a label.

    Bars are one standard error.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for label, (name, (color, marker, line)) in enumerate(zip(outcomes(ties=ties), STYLES, strict=False)):
        points = reliability_points(p[:, label], y == label)
        error = np.sqrt(points[:, 1] * (1 - points[:, 1]) / points[:, 2])
        axes.errorbar(points[:, 0], points[:, 1], yerr=error, label=name, color=color, marker=marker, linestyle=line, capsize=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share that happened", aspect="equal")
    axes.set_title(f"Reliability, {len(y)} rows")
    axes.legend(loc="upper left")
    return figure


def by_length(p: np.ndarray, y: np.ndarray, characters: np.ndarray, bins: int = 8, *, ties: bool = True) -> Figure:
    """Mean log loss by the battles' length, with one standard error.

    Bins of equal numbers of rows; guessing for scale.
    """
    from matplotlib.figure import Figure

    losses = log_loss_rows(p, y)
    parts = [part for part in np.array_split(np.argsort(characters, kind="stable"), min(bins, len(y))) if len(part)]
    means = np.array([losses[part].mean() for part in parts])
    errors = np.nan_to_num([standard_error(losses[part]) for part in parts])
    lengths = np.array([max(1.0, float(np.median(characters[part]))) for part in parts])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(lengths, means, yerr=errors, color=STYLES[0][0], marker="o", capsize=3, linewidth=2)
    guessing = uniform_loss(ties=ties)
    axes.axhline(guessing, color="0.5", linestyle="--", linewidth=1)
    axes.annotate("guessing", (0.99, guessing), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.35")
    axes.set(xscale="log", xlabel="characters of a battle", ylabel="log loss, nats", title=f"Log loss by length, {len(y)} rows")
    _round_ticks(axes, lengths)
    return figure


def _round_ticks(axes: Axes, values: np.ndarray) -> None:
    """Put ticks at 1, 3, 10, 30 and so on to a logarithmic horizontal axis, as plain numbers.

    Only those that the values span.
    """
    low, high = float(values.min()) / 1.5, float(values.max()) * 1.5
    ticks = [m * 10.0**k for k in range(-9, 10) for m in (1, 3) if low <= m * 10.0**k <= high]
    axes.set_xticks(ticks, [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def cost_figure(
    points: Mapping[str, tuple[float, float, float]], plan: tuple[float, float, float] | None, *, target: str, rows: int
) -> Figure:
    """Log loss against hours for 25,000 rows: a point a member, a star for the plan.

    `points`: name -> (hours, log loss, standard error), all on about `rows` rows of one data set; `plan` likewise.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    hours_of_all = np.array([hours for hours, _, _ in (*points.values(), *([plan] if plan else []))])
    span = (float(hours_of_all.min()), float(hours_of_all.max()))
    for place, (name, (hours, loss, error)) in enumerate(points.items()):
        axes.errorbar(hours, loss, yerr=error, color=STYLES[0][0], marker="o", capsize=2, linestyle="none")
        # Towards the middle, above or below by turns: variants of one entry cost about the same.
        right, above = hours**2 > span[0] * span[1], place % 2 == 0
        offset, side = ((-6 if right else 6), (5 if above else -11)), ("right" if right else "left")
        axes.annotate(name, (hours, loss), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
    if plan:
        axes.errorbar(
            plan[0], plan[1], yerr=plan[2], color=STYLES[2][0], marker="*", markersize=16, capsize=2, linestyle="none"
        )
        axes.annotate(
            "this plan", plan[:2], xytext=(-9, -14), textcoords="offset points", fontsize=9, weight="bold", ha="right"
        )
    axes.margins(y=0.15)
    axes.set(xscale="log", xlabel=f"hours for {COMPETITION_ROWS:,} rows on {target}", ylabel="log loss out of fold, nats")
    axes.set_title(f"Cost against log loss, {rows:,} rows")
    _round_ticks(axes, hours_of_all)
    axes.grid(alpha=0.3)
    return figure


def _panels(panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[int, float]]]]]) -> Figure:
    """Panels of curves below each other on one axis of steps.

    Each panel is (label of the vertical axis, name -> points).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.2 + 2.4 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (label, curves) in zip(grid, panels, strict=True):
        for i, (name, points) in enumerate(curves.items()):
            color, marker, line = STYLES[i % len(STYLES)]
            few = marker if len(points) <= 20 else None
            axes.plot(*zip(*points, strict=True), color=color, marker=few, linestyle=line, label=name)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.set_ylabel(label)
        if len(curves) > 1:
            axes.legend()
    grid[-1].set_xlabel("optimizer step")
    return figure


def confusion(p: np.ndarray, y: np.ndarray, *, ties: bool = True) -> Figure:
    """Rows by true label and most probable label, with shares of each true label."""
    from matplotlib.figure import Figure

    names = outcomes(ties=ties)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (y, p[:, : len(names)].argmax(axis=1)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for truth in range(len(names)):
        for guess in range(len(names)):
            color = "white" if shares[truth, guess] > 0.6 else "black"
            text = f"{counts[truth, guess]}\n{shares[truth, guess]:.0%}"
            axes.text(guess, truth, text, ha="center", va="center", color=color, fontsize=14)
    axes.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names)
    axes.set(xlabel="most probable", ylabel="true", title=f"Confusion, {len(y)} rows")
    return figure


def png(figure: Figure, *, scale: int = 1) -> bytes:
    """A figure as PNG, with `scale` times the pixels; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110 * scale, metadata={"Software": None})
    return buffer.getvalue()
