"""The margin between predicted and allowed seconds, and its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.contracts import Cost
from zoo.errors import ZooError
from zoo.targets import Target, is_of_kind, machine_fingerprint

MEASURED_HERE_MARGIN = 1.1


def choose_margin(target: Target, costs: Sequence[Cost], given: float | None = None) -> tuple[float, str]:
    """The margin and its reason.

    Predicted seconds are multiplied by it before they must fit the budget. The user's own number first; 1.1 where every cost
    was measured on this very machine and it is of the target's kind; else the target's.
    """
    if given is not None:
        if not math.isfinite(given) or given < 1:
            raise ZooError(f"--margin {given:g}: must be at least 1, since it multiplies the predicted seconds")
        return given, "given by --margin"
    measured = [cost.machine for cost in costs if cost.machine]
    if not measured:
        return target.margin, f"target {target.name}: the members' costs are declared, not measured"
    foreign = [machine for machine in measured if not is_of_kind(machine, target)]
    if foreign:
        return target.margin, f"target {target.name}: a cost was not measured on such a machine, but on {foreign[0]}"
    if len(measured) < len(costs) or any(machine != machine_fingerprint() for machine in measured):
        return target.margin, f"target {target.name}: not every member was measured on this very machine"
    return MEASURED_HERE_MARGIN, "every member was measured on this very machine"


def warn_of_kinds(target: Target, names: Sequence[str], costs: Sequence[Cost]) -> list[str]:
    """A line for each member whose cost was measured on another kind of machine.

    The kind is compared with the target's.
    """
    return [
        f"{name}: its cost for {target.name} was measured on {cost.machine}, which is no such machine; measure it there"
        for name, cost in zip(names, costs, strict=True)
        if cost.machine and not is_of_kind(cost.machine, target)
    ]
