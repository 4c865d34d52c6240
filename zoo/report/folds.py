"""The table of log loss by fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.text import Cell, Column, Table
from zoo.scores.metric_names import LOG_LOSS, LOG_LOSS_SE, METRICS, REFINEMENT, ROWS

if TYPE_CHECKING:
    from zoo.scores.out_of_fold import OutOfFold


def folds_table(found: Sequence[OutOfFold]) -> Table:
    """Log loss of each variant by fold and over all rows, with standard errors."""
    rows: list[list[Cell]] = []
    for variant in found:
        parts = [(str(fold), metrics) for fold, metrics in variant.by_fold.items()] + [("all, out of fold", variant.whole)]
        for name, m in parts:
            losses = [m.get(key) for key in (LOG_LOSS, LOG_LOSS_SE, REFINEMENT)]
            rows.append([variant.slug, name, *losses, int(m.get(ROWS, 0))])
    columns = [
        Column("variant"),
        Column("fold"),
        Column(METRICS[LOG_LOSS].title, "log_loss", ".4f"),
        Column(METRICS[LOG_LOSS_SE].title, "log_loss_se", ".4f"),
        Column(METRICS[REFINEMENT].title, "refinement", ".4f", drop=1),
        Column(METRICS[ROWS].title, form=",", drop=2),
    ]
    return Table(columns, rows)
