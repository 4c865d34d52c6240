"""Figures of a scored run, readable in greyscale and small: reliability of each label, and confusion."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("A wins", "B wins", "tie")
STYLES = (("#1b1b1b", "o", "-"), ("#0072b2", "s", "--"), ("#d55e00", "^", ":"))  # tell apart without colour


def score_figures(p: np.ndarray, y: np.ndarray) -> dict[str, bytes]:
    """PNG files by name, from probabilities (rows, 3) and labels 0, 1, 2 (rows,)."""
    return {"reliability.png": png(reliability(p, y)), "confusion.png": png(confusion(p, y))}


def reliability_points(predicted: np.ndarray, happened: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean prediction, share that happened, and rows, of bins of equal numbers of rows: (bins, 3), fewer for few rows."""
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(bins, max(1, len(order) // 10)))
    return np.array([(predicted[part].mean(), happened[part].mean(), len(part)) for part in parts if len(part)])


def reliability(p: np.ndarray, y: np.ndarray) -> Figure:
    """Share that happened against the predicted probability, a line a label; bars are one standard error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for label, (name, (color, marker, line)) in enumerate(zip(NAMES, STYLES, strict=True)):
        points = reliability_points(p[:, label], y == label)
        error = np.sqrt(points[:, 1] * (1 - points[:, 1]) / points[:, 2])
        axes.errorbar(points[:, 0], points[:, 1], yerr=error, label=name, color=color, marker=marker, linestyle=line, capsize=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share that happened", aspect="equal")
    axes.set_title(f"Reliability, {len(y)} rows")
    axes.legend(loc="upper left")
    return figure


def confusion(p: np.ndarray, y: np.ndarray) -> Figure:
    """Rows by true label and most probable label, with shares of each true label."""
    from matplotlib.figure import Figure

    counts = np.zeros((3, 3), dtype=np.int64)
    np.add.at(counts, (y, p.argmax(axis=1)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for truth in range(3):
        for guess in range(3):
            color = "white" if shares[truth, guess] > 0.6 else "black"
            text = f"{counts[truth, guess]}\n{shares[truth, guess]:.0%}"
            axes.text(guess, truth, text, ha="center", va="center", color=color, fontsize=14)
    axes.set(xticks=range(3), yticks=range(3), xticklabels=NAMES, yticklabels=NAMES)
    axes.set(xlabel="most probable", ylabel="true", title=f"Confusion, {len(y)} rows")
    return figure


def png(figure: Figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
