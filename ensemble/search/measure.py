"""By what candidates are compared: log loss of the mean row, or of left-out groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ensemble.search.robust import Groups, beyond_by_group, score, score_and_error
from zoo.scores.metrics import mean_and_error, standard_error


@dataclass(frozen=True)
class Measure:
    """How losses of the same rows are compared.

    `held`: the groups, None where every row weighs the same.
    """

    held: Groups | None = None

    def on(self, rows: np.ndarray) -> Measure:
        """The same on some rows, bool (rows,)."""
        return self if self.held is None else Measure(replace(self.held, of=self.held.of[rows]))

    def score(self, losses: np.ndarray) -> float:
        """What losses (rows,) come to."""
        return float(losses.mean()) if self.held is None else score(losses, self.held.of, self.held.asked.by)

    def score_and_error(self, losses: np.ndarray, prompts: np.ndarray) -> tuple[float, float]:
        """What losses (rows,) come to, and the error of that by prompt."""
        if self.held is None:
            return mean_and_error(losses, prompts)
        return score_and_error(losses, self.held.of, prompts, self.held.asked.by)

    def beyond(self, one: np.ndarray, other: np.ndarray, prompts: np.ndarray) -> tuple[float, float]:
        """How much one's losses (repeats, rows) come to beyond another's, and the error of that.

        By prompt, and by how repeats differ.
        """
        if self.held is not None:
            return beyond_by_group(one.mean(axis=0), other.mean(axis=0), self.held.of, prompts, self.held.asked.by)
        apart = one - other
        difference, error = mean_and_error(apart.mean(axis=0), prompts)
        if len(apart) > 1:
            error = float(np.hypot(error, standard_error(apart.mean(axis=1))))
        return difference, error


BY_ROWS = Measure()
