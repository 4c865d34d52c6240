"""What `zoo register --battles` shows of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.pipeline.first_look import Look
from zoo.report.text import Cell, Column, Page, Table


def look_page(found: Sequence[Look], battles: Path) -> Page:
    """A table with a line a variant, and the warnings, each once."""
    columns = [
        Column("variant"),
        *(Column(name, "float") for name in ("log loss", "se", "label shares", "guessing", "recalibrated")),
        Column("rows", "int"),
        Column("tokens", "int"),
        Column("cut", "int"),
    ]
    rows: list[list[Cell]] = [
        [
            one.variant,
            *(round(value, 4) for value in (one.log_loss, one.error, one.label_shares, one.uniform, one.recalibrated)),
            one.rows,
            round(one.tokens),
            one.cut,
        ]
        for one in found
    ]
    warnings = dict.fromkeys(warning for one in found for warning in one.warnings)
    return [f"on a sample of {battles.name}:", Table(columns, rows), *(f"warning: {text}" for text in warnings), ""]
