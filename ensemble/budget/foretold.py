"""What is said of members whose cost on the target is a forecast."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.contracts import Cost
from zoo.report.duration import format_seconds

MARK = "forecast"
BASES = {
    "measured": "measured on such a machine",
    "scaled": "measured elsewhere, scaled",
    "published": "its shape and published run times",
    "rates": "its shape, published run times and rates measured there",
}


def forecast_text(cost: Cost, seconds: float, of: str = "of one copy") -> str:
    """Whose cost a forecast is, what it rests on, and how far it may be off.

    Empty of what is no forecast. `of`: what takes so many `seconds`; 80 in 100 lie between the two that are named.
    """
    forecast = cost.forecast
    if forecast is None:
        return ""
    low, likely, high = (format_seconds(seconds * factor) for factor in (forecast.low, 1.0, forecast.high))
    submitted = forecast.high_submitted
    more = f", up to {format_seconds(seconds * submitted)} as a Kaggle submission" if submitted else ""
    basis = f"{forecast.as_entry} on {cost.target}, {BASES[forecast.basis]}"
    return f"{MARK} ({basis}): {likely} {of}, {low} to {high}{more}"


def forecast_lines(named: Sequence[tuple[str, Cost, float]], of: str = "of one copy") -> list[str]:
    """A line for each member (name, cost, seconds) whose cost is a forecast."""
    return [f"{name}: {text}" for name, cost, seconds in named if (text := forecast_text(cost, seconds, of))]
