"""The margin between predicted and allowed seconds, and its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zoo.contracts import Cost
from zoo.errors import ZooError
from zoo.targets import Target, is_of_kind, machine_fingerprint

MEASURED_HERE_MARGIN = 1.1


def choose_margin(target: Target, costs: Sequence[Cost], given: float | None = None) -> tuple[float, str]:
    """The margin and its reason, before forecasts add theirs (`forecast_factors`).

    Predicted seconds are multiplied by it before they must fit the budget. The user's own number first; 1.1 where every cost
    was measured on this very machine and it is of the target's kind; else the target's.
    """
    if given is not None:
        if not math.isfinite(given) or given < 1:
            raise ZooError(f"--margin {given:g}: must be at least 1, since it multiplies the predicted seconds")
        return given, "given by --margin"
    if any(cost.forecast for cost in costs):
        return target.margin, f"target {target.name}: not every member was measured there"
    measured = [cost.machine for cost in costs if cost.machine]
    if not measured:
        return target.margin, f"target {target.name}: the members' costs are declared, not measured"
    foreign = [machine for machine in measured if not is_of_kind(machine, target)]
    if foreign:
        return target.margin, f"target {target.name}: a cost was not measured on such a machine, but on {foreign[0]}"
    if len(measured) < len(costs) or any(machine != machine_fingerprint() for machine in measured):
        return target.margin, f"target {target.name}: not every member was measured on this very machine"
    return MEASURED_HERE_MARGIN, "every member was measured on this very machine"


def forecast_factors(target: Target, costs: Sequence[Cost], given: float | None = None) -> np.ndarray:
    """By how much the margin of each member's forecast exceeds the target's.

    (members,), 1 where a cost is no forecast. So that the seconds of all fit in 9 of 10 cases: the upper end of the forecast's
    interval as a submission where that is known, else that end and the target's margin as independent causes, whose
    logarithms add as squares. The errors of several forecasts by one method are the same error, so that their ends are
    summed. All are 1 where the user gave the margin.
    """
    if given is not None:
        return np.ones(len(costs))
    wanted = [_wanted(target.margin, cost) for cost in costs]
    return np.maximum(1.0, np.array(wanted) / target.margin)


def _wanted(margin: float, cost: Cost) -> float:
    forecast = cost.forecast
    if forecast is None:
        return margin
    if forecast.high_submitted is not None:
        return max(margin, forecast.high_submitted)
    return math.exp(math.hypot(math.log(margin), math.log(forecast.high)))


def warn_of_kinds(target: Target, names: Sequence[str], costs: Sequence[Cost]) -> list[str]:
    """A line for each member whose cost was measured on another kind of machine.

    The kind is compared with the target's.
    """
    return [
        f"{name}: its cost for {target.name} was measured on {cost.machine}, which is no such machine; measure it there"
        for name, cost in zip(names, costs, strict=True)
        if cost.machine and not is_of_kind(cost.machine, target)
    ]
