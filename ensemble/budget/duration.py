"""Budgets as people write them, and the margin between what is predicted and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from zoo.contracts import Cost
from zoo.errors import ZooError
from zoo.targets import Target, is_of_kind, machine_fingerprint

MEASURED_HERE_MARGIN = 1.1
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|m|s)")


def parse_budget(text: str) -> float:
    """Seconds of `9h`, `5m`, `1h30m`, `90s` or a bare number of seconds; ZooError on anything else, zero included."""
    cleaned = text.strip().lower()
    try:
        seconds = float(cleaned)
    except ValueError:
        parts = _PART.findall(cleaned)
        if not parts or _PART.sub("", cleaned).strip():
            raise ZooError(f"budget {text!r}: give hours, minutes and seconds as in 9h, 1h30m, 5m or 90s") from None
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not math.isfinite(seconds) or seconds <= 0:
        raise ZooError(f"budget {text!r}: must be more than zero seconds")
    return seconds


def format_seconds(seconds: float) -> str:
    """Seconds for people, rounded up where the unit is coarse: `8 h 59 min`, `4 min 10 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def choose_margin(target: Target, costs: Sequence[Cost], given: float | None = None) -> tuple[float, str]:
    """(margin, reason): what predicted seconds are multiplied by before they must fit the budget.

    The user's own number first; 1.1 where every cost was measured on this very machine and it is of the target's kind; else
    the target's.
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
    """A line for each member whose cost was measured on a machine of another kind than the target."""
    return [
        f"{name}: its cost for {target.name} was measured on {cost.machine}, which is no such machine; measure it there"
        for name, cost in zip(names, costs, strict=True)
        if cost.machine and not is_of_kind(cost.machine, target)
    ]
