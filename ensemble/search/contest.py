"""The contest: which rehearsed candidate is taken, and what the plan reports.

All candidates were judged on the same rows by the same folds. Reported is not the winner's own mean, which is the least of
several and so flatters, but that of a contest held anew for each fold by the other folds' losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ensemble.plan import candidate_words
from ensemble.search.decide import CHEAPER, COVERAGE, LEAST_SAVING
from ensemble.search.measure import Measure
from ensemble.search.robust import Groups, words
from ensemble.search.simple import ALONE, LOG_POOL, RECALIBRATED

FEW_LABELS = 2_000  # with fewer rows, a search that looks better than the log pool of everybody mostly is not
SURELY = 2.0  # standard errors: of the half dozen that challenge it, the luckiest is often beyond one


@dataclass(frozen=True)
class Contest:
    """Candidates by `names`, the simplest first, and how they went.

    `losses` (names, repeats, rows) of the rehearsal, `folds` (repeats, rows) what was left out for each, `groups` (rows,) the
    prompts, `seconds` (names,) the price of each candidate. `held`: the groups that the folds are, where candidates are
    compared by these and not by the mean over rows.
    """

    names: tuple[str, ...]
    losses: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    seconds: np.ndarray
    parsimony: bool = False
    held: Groups | None = None

    @property
    def few(self) -> bool:
        """Whether the log pool of everybody stays unless something is surely better.

        It can stay only where it may be taken.
        """
        return has_few_rows(self.losses) and LOG_POOL in self.names

    @cached_property
    def means(self) -> np.ndarray:
        """Losses (names, rows), the mean over repeats."""
        means: np.ndarray = self.losses.mean(axis=1)
        return means

    @cached_property
    def _simplicity(self) -> tuple[int, ...]:
        """The simplest first; single members are as simple as one another.

        Which of them comes first in `names` was found by all rows: a fold that went by it would know its own rows.
        """
        first: dict[str, int] = {}
        kinds = [next((kind for kind in (ALONE, RECALIBRATED) if name.endswith(kind)), name) for name in self.names]
        return tuple(first.setdefault(kind, place) for place, kind in enumerate(kinds))

    @cached_property
    def winner(self) -> str:
        """The candidate to take, by all rows."""
        return self.names[self._pick(range(len(self.names)), np.ones(self.losses.shape[2], dtype=bool))]

    def reported(self, *, whole_files: bool = False) -> np.ndarray:
        """Losses (repeats, rows) of contests that the other folds decided.

        `whole_files`: of those without coverage plans.
        """
        allowed = [place for place, name in enumerate(self.names) if not (whole_files and name in (COVERAGE, CHEAPER))]
        out = np.empty(self.losses.shape[1:])
        for repeat, folds in enumerate(self.folds):
            for fold in np.unique(folds):
                held = folds == fold
                out[repeat, held] = self.losses[self._pick(allowed, ~held), repeat, held]
        return out

    def why(self) -> str:
        """Why the winner was taken, in words and numbers."""
        won = self.names.index(self.winner)
        rows = self.losses.shape[2]
        others = [place for place in range(len(self.names)) if not np.array_equal(self.means[place], self.means[won])]
        if not others:
            return f"{candidate_words(self.winner)}: no other candidate differs from it"
        everything = np.ones(rows, dtype=bool)
        nearest = min(others, key=lambda place: self._score(place, everything))
        difference, error = self._beyond(nearest, won, everything)
        beside = f"{candidate_words(self.names[nearest])} came out {difference:+.5f} +- {error:.5f} against it in rehearsal"
        by = f" by {words(self.held.asked, self.held.names)}" if self.held else ""
        return f"{candidate_words(self.winner)}: {self._reason(won)}{by}; {beside}"

    def _reason(self, won: int) -> str:
        rows = self.losses.shape[2]
        if self.parsimony and won != self._best(range(len(self.names)), np.ones(rows, dtype=bool)):
            return "the cheapest within one standard error of the best, which is taken without --parsimony"
        if self.few and self.winner == LOG_POOL:
            return f"{rows:,} labelled rows are few, so it stays where nothing is surely better"
        if self.few:
            return f"surely better than the log pool of everybody, on {rows:,} labelled rows"
        scores = [self._score(place, np.ones(rows, dtype=bool)) for place in range(len(self.names))]
        if won == int(np.argmin(scores)):
            return "least log loss in rehearsal"
        which = "of everybody" if self.winner == LOG_POOL else "the simplest"
        return f"{which}, within one standard error of the least log loss in rehearsal"

    def _pick(self, allowed: Sequence[int], rows: np.ndarray) -> int:
        """The place of the winner among `allowed`, by the losses of `rows` (bool, rows)."""
        best = self._best(allowed, rows)
        if not self.parsimony:
            return best
        cheaper = [place for place in allowed if self.seconds[place] <= self.seconds[best] * (1 - LEAST_SAVING)]
        as_good = [place for place in cheaper if self._is_as_good(place, best, rows)]
        price = {place: (float(self.seconds[place]), self._simplicity[place], self._score(place, rows)) for place in as_good}
        return min(as_good, key=lambda place: price[place], default=best)

    def _best(self, allowed: Sequence[int], rows: np.ndarray) -> int:
        loss = {place: self._score(place, rows) for place in allowed}
        least = min(allowed, key=lambda place: loss[place])
        if not self.few:
            # Of several that are as good, many members lose least where the rows to predict differ from these.
            ordered = sorted(allowed, key=lambda place: (self.names[place] != LOG_POOL, self._simplicity[place], loss[place]))
            return next(place for place in ordered if place == least or self._is_as_good(place, least, rows))
        default = self.names.index(LOG_POOL)
        better = [place for place in allowed if self._is_better(place, default, rows)]
        return min(better, key=lambda place: loss[place], default=default)

    def _score(self, place: int, rows: np.ndarray) -> float:
        """What a candidate is compared by, on `rows` (bool, rows): the mean loss, or that of held-out groups."""
        return Measure(self.held).on(rows).score(self.means[place, rows])

    def _is_as_good(self, place: int, best: int, rows: np.ndarray) -> bool:
        difference, error = self._beyond(place, best, rows)
        return difference <= error

    def _is_better(self, place: int, default: int, rows: np.ndarray) -> bool:
        difference, error = self._beyond(place, default, rows)
        return difference < -SURELY * error

    def _beyond(self, place: int, other: int, rows: np.ndarray) -> tuple[float, float]:
        """Mean loss of one beyond another's on `rows`, and the error of that."""
        ours, theirs = self.losses[place][:, rows], self.losses[other][:, rows]
        return Measure(self.held).on(rows).beyond(ours, theirs, self.groups[rows])


def has_few_rows(losses: np.ndarray) -> bool:
    """Whether losses (..., rows) are of so few rows that what looks better mostly is not."""
    return bool(losses.shape[-1] < FEW_LABELS)
