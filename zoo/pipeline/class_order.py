"""Whether probabilities fit the labels better with their classes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from zoo.contracts import LABELS
from zoo.scores.metrics import log_loss_rows, recalibrated_log_loss, standard_error

# Another order must gain at least this many nats a row before it is called an exchange.
LEAST_NATS = 0.02
SIDES = (1, 0, 2)  # A and B exchanged
ORDERS = tuple(order for order in permutations(range(3)) if order != (0, 1, 2))


@dataclass(frozen=True)
class Exchange:
    """An order of the classes that fits better than the one that is there.

    `order`: for a, b and tie the place where it stands; log losses in nats, and the paired difference with its error.
    """

    order: tuple[int, int, int]
    given: float
    exchanged: float
    gain: float
    error: float

    @property
    def names(self) -> tuple[str, ...]:
        """What stands at each place, as it seems: the classes in the order of the probabilities."""
        return tuple(LABELS[self.order.index(place)] for place in range(len(LABELS)))


def exchange(
    p: np.ndarray, y: np.ndarray, groups: np.ndarray, *, orders: Sequence[tuple[int, ...]] = ORDERS, errors: float
) -> Exchange | None:
    """The order with the lowest log loss, where it is surely below that which is there.

    By `errors` standard errors of the paired difference (by `groups`, prompts; of one prompt nothing is known), and so that it
    is no matter of how often each class is expected: also where either order has its best temperature and label biases. `p`
    (rows, 3), labels `y` (rows,).
    """
    given = log_loss_rows(p, y)
    order = min(orders, key=lambda one: float(log_loss_rows(p[:, one], y).mean()))
    other = log_loss_rows(p[:, order], y)
    gain = given - other
    error = standard_error(gain, groups)
    if not (gain.mean() > LEAST_NATS and gain.mean() > errors * error):
        return None
    if order != SIDES and recalibrated_log_loss(p[:, order], y) > recalibrated_log_loss(p, y) - LEAST_NATS / 2:
        return None
    return Exchange((order[0], order[1], order[2]), float(given.mean()), float(other.mean()), float(gain.mean()), float(error))
