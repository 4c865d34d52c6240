"""Coordinates in which pools are linear: a table's lead of A over B, its pull to a tie.

Exchanging A and B turns a lead into minus itself and leaves a pull as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.pools.softmax import softmax_of

EVEN, EVEN_SIDES = np.array([3.0, 3.0, 3.0]), np.array([2.0, 2.0, np.inf])  # what the uniform triple's 1 is divided by
SMALLEST = 1e-15


@dataclass(frozen=True)
class Coordinates:
    """Arrays (rows, members) of tables: log p_a - log p_b, the mean of these two, log p_tie.

    Where no battle can be a tie `ties` are zeros.
    """

    leads: np.ndarray
    sides: np.ndarray
    ties: np.ndarray
    has_ties: bool

    @property
    def pulls(self) -> np.ndarray:
        """The pulls to a tie (rows, members).

        Where there are no ties, how sure each table is of its side.
        """
        pulls: np.ndarray = self.ties - self.sides if self.has_ties else np.abs(self.leads)
        return pulls


def coordinates(p: np.ndarray, floor: float, *, ties: bool) -> Coordinates:
    """Those of tables p (members, rows, 3), after `floor` of the uniform triple is mixed in."""
    labels = 3 if ties else 2
    logs = np.log(np.maximum((1 - floor) * p[:, :, :labels] + floor / labels, SMALLEST))
    leads = (logs[:, :, 0] - logs[:, :, 1]).T
    sides = ((logs[:, :, 0] + logs[:, :, 1]) / 2).T
    return Coordinates(leads, sides, logs[:, :, 2].T if ties else np.zeros_like(sides), ties)


def lead_and_odds(p: np.ndarray, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """log p_a - log p_b, and the log-odds of a tie, of triples p (rows, 3).

    The latter is zero where there are no ties.
    """
    safe = np.maximum(p, SMALLEST)
    odds = np.log(safe[:, 2]) - np.log(safe[:, 0] + safe[:, 1]) if ties else np.zeros(len(p))
    return np.log(safe[:, 0]) - np.log(safe[:, 1]), odds


def triples_of(lead: np.ndarray, odds: np.ndarray, *, ties: bool) -> np.ndarray:
    """Triples (rows, 3) of what `lead_and_odds` gives."""
    if not ties:
        return softmax_of(lead, np.full_like(lead, -np.inf))
    return softmax_of(lead, odds + np.logaddexp(lead / 2, -lead / 2))
