"""Budgets as people write them: `9h`, `1h30m`, `90s`."""

from __future__ import annotations

import math
import re

from zoo.errors import ZooError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|m|s)")


def parse_budget(text: str) -> float:
    """Seconds of `9h`, `5m`, `1h30m`, `90s` or a bare number of seconds.

    ZooError on anything else, zero included.
    """
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
    """Seconds for people, rounded up where the unit is coarse.

    `8 h 59 min`, `4 min 10 s`, `12.3 s`.
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
