"""The cards' own rates, measured once: what forecasts at home rest on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .environment import Environment
from .find import Found
from .places import say

LONGEST_SECONDS = 120.0  # it says that it takes under a minute, and imports torch for the first time before
SHARE = 0.02  # of the time that is left, at most


def measure(found: Found, environment: Environment, variables: Mapping[str, str], left_seconds: float) -> dict[str, Any] | None:
    """What `zoo target measure --quick` finds; None where there is no time, or it fails.

    Reading is timed on a mounted checkpoint. `left_seconds`: of the budget.
    """
    if SHARE * left_seconds < LONGEST_SECONDS:
        return None
    command = [str(environment.python), "-m", "zoo", "target", "measure", "--quick", "--json"]
    weights = _largest(found)
    command += ["--read", str(weights)] if weights else []
    try:
        done = subprocess.run(command, env=dict(variables), capture_output=True, text=True, timeout=LONGEST_SECONDS, check=True)
        rates: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        say(f"warn  rates are not measured: {said[-1] if said else error}")
        return None
    say(f"rates, for `zoo target import predict.json` at home: {json.dumps(rates.get('rates', rates))}")
    return rates


def _largest(found: Found) -> Path | None:
    """The largest file of a model that is mounted."""
    files = [
        (record["bytes"], found.parts[part["name"]] / record["path"])
        for part in found.bundle["parts"]
        if part["kind"] == "model" and part["name"] in found.parts
        for record in part["files"]
    ]
    return max(files)[1] if files else None
