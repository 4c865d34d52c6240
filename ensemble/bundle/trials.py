"""Dry runs of a bundle as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.report.text import Column, Table

if TYPE_CHECKING:
    from ensemble.bundle.dry_run import Trial


def trials_table(trials: Sequence[Trial]) -> Table:
    """The dry runs: what was done to each, what came of it, and whether the submission is whole."""
    columns = [
        Column("dry run"),
        Column("verdict"),
        Column("what was done", prose=True),
        Column("what came", prose=True),
        Column("seconds", form=".1f"),
    ]
    rows = [(trial.name, "ok" if trial.whole else "fail", trial.done, trial.came, trial.seconds) for trial in trials]
    return Table(columns, rows)
