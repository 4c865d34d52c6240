"""Log loss fold by fold, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.text import Cell, Column, Table

if TYPE_CHECKING:
    from zoo.scores.out_of_fold import OutOfFold


def folds_table(found: Sequence[OutOfFold]) -> Table:
    """Log loss of each variant by fold and over all rows, with standard errors."""
    rows: list[list[Cell]] = []
    for variant in found:
        parts = [(str(fold), metrics) for fold, metrics in variant.by_fold.items()] + [("all, out of fold", variant.whole)]
        for name, m in parts:
            losses = [m.get(key) for key in ("val/log_loss", "val/log_loss_se", "val/refinement")]
            rows.append([variant.slug, name, *losses, int(m.get("val/rows", 0))])
    columns = [
        Column("variant"),
        Column("fold"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("recalibrated", "refinement", ".4f", drop=1),
        Column("rows", form=",", drop=2),
    ]
    return Table(columns, rows)
