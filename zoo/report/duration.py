"""Budgets as people write them: `9h`, `1h30m`, `90s`."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime

from zoo.errors import ZooError

LONGEST_SECONDS = 30 * 86400.0  # what is longer is a slip of the finger
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_PARTS = re.compile(r"\s*".join(rf"(?:({_NUMBER})\s*{unit})?" for unit in _UNITS))


def parse_budget(text: str) -> float:
    """Seconds of `9h`, `5m`, `1h30m`, `90s` or a bare number of seconds.

    Each unit once at most, the larger first. ZooError on anything else, on zero, and beyond 30 days.
    """
    cleaned = text.strip().lower()
    parts = _PARTS.fullmatch(f"{cleaned}s" if re.fullmatch(_NUMBER, cleaned) else cleaned)
    if not cleaned or parts is None:
        raise ZooError(f"budget {text!r}: give hours, minutes and seconds, each once, as in 9h, 1h30m, 5m or 90s")
    seconds = sum(float(number) * unit for number, unit in zip(parts.groups(), _UNITS.values(), strict=True) if number)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ZooError(f"budget {text!r}: must be more than zero seconds and at most {LONGEST_SECONDS / 86400:.0f} days")
    return seconds


def parse_moment(text: str) -> float:
    """Unix seconds of a past moment: such seconds, or an ISO 8601 time with its offset.

    ZooError on anything else, on a moment to come, and on one more than 30 days ago.
    """
    cleaned, mend = text.strip(), "give Unix seconds (date +%s) or a time with its offset, as in 2026-11-26T08:30:00+00:00"
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", cleaned):
        moment = float(cleaned)
    else:
        try:
            parsed = datetime.fromisoformat(cleaned)
        except ValueError as error:
            raise ZooError(f"--started-at {text}: not a moment; {mend}") from error
        if parsed.tzinfo is None:
            raise ZooError(f"--started-at {text}: without an offset from UTC it names no moment; {mend}")
        moment = parsed.timestamp()
    ago = time.time() - moment
    if not -1 <= ago <= LONGEST_SECONDS:  # clocks that give whole seconds may be up to one ahead
        raise ZooError(f"--started-at {text}: {'to come' if ago < 0 else 'more than 30 days ago'}; {mend}")
    return moment


def format_seconds(seconds: float) -> str:
    """Seconds for people, rounded up where the unit is coarse.

    `8 h 59 min`, `4 min 10 s`, `12.3 s`; what is saved has a sign, `-4 min 10 s`.
    """
    if seconds <= -60:
        return f"-{format_seconds(-seconds)}"
    if seconds < 60:
        return f"{seconds:z.1f} s"  # z: what rounds to nothing has no sign
    whole = math.ceil(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
