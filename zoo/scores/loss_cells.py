"""Where held-out loss is worst: means of cells, without what chance may have made."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ALPHA = 0.05  # below, cells differ by more than chance
FEWEST = 2  # prompts of a cell: of one, nothing says how they spread


@dataclass(frozen=True)
class LossCells:
    """Mean losses by cell.

    `table` has `prompts`, `rows`, `mean` and the shrunken `loss` of each. `chance`: of cells that do not differ at all to
    differ so much; `mean`: of all.
    """

    table: pd.DataFrame
    mean: float
    chance: float

    @property
    def differ(self) -> bool:
        return self.chance < ALPHA

    def excess(self, cells: Sequence[Hashable]) -> np.ndarray:
        """How far the loss in each of some cells is above the mean: (cells,).

        0 where it is not, and where nothing is known.
        """
        if not self.differ:
            return np.zeros(len(cells))
        above = (self.table["loss"] - self.mean).clip(lower=0.0).to_dict()
        return np.array([above.get(cell, 0.0) for cell in cells])


def loss_cells(losses: np.ndarray, groups: np.ndarray, cells: Sequence[Hashable]) -> LossCells:
    """Cells' mean losses by random effects.

    `losses` (rows,) nats; `groups` (rows,): what depends on each other, as the battles of a prompt, which count as one by their
    mean; `cells`: of each row, the same within a group. Variance between cells by DerSimonian and Laird (1986), and each mean
    drawn towards that of all by its share of noise (James and Stein 1961); within cells prompts are taken to spread alike. The
    chance is Cochran's Q against chi-squared.
    """
    from scipy.stats import chi2

    rows = pd.DataFrame({"loss": losses, "group": groups, "cell": pd.Series(list(cells), dtype=object)})
    prompts = rows.groupby("group").agg(loss=("loss", "mean"), rows=("loss", "size"), cell=("cell", "first"))
    table = prompts.groupby("cell").agg(prompts=("loss", "size"), rows=("rows", "sum"), mean=("loss", "mean"))
    overall = float(prompts["loss"].mean())
    free = len(prompts) - len(table)
    deviations = prompts["loss"] - prompts["cell"].map(table["mean"])
    if free < FEWEST or len(table) < FEWEST or not (within := float((deviations**2).sum() / free)):
        return LossCells(table.assign(loss=overall), overall, 1.0)
    counts = table["prompts"].to_numpy(dtype=float)
    q = float((counts * (table["mean"].to_numpy() - overall) ** 2).sum() / within)
    spread = len(table) - 1
    scale = counts.sum() - (counts**2).sum() / counts.sum()
    between = max(0.0, (q - spread) * within / scale)
    kept = between / (between + within / counts)
    return LossCells(table.assign(loss=overall + kept * (table["mean"] - overall)), overall, float(chi2.sf(q, spread)))
