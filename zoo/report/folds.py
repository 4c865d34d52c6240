"""The table of log loss by fold."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.scores.out_of_fold import OutOfFold


def folds_table(found: Sequence[OutOfFold]) -> str:
    """Log loss of each variant by fold and over all rows, with standard errors."""
    from zoo.report.text import text_table

    rows = []
    for variant in found:
        parts = [(str(fold), metrics) for fold, metrics in variant.by_fold.items()] + [("all, out of fold", variant.whole)]
        for name, m in parts:
            losses = [f"{m[key]:.4f}" if key in m else "-" for key in ("val/log_loss", "val/log_loss_se", "val/refinement")]
            rows.append([variant.slug, name, *losses, f"{m.get('val/rows', 0):.0f}"])
    return text_table(["variant", "fold", "log loss", "se", "recalibrated", "rows"], rows)
