"""Which runner is used: an option before the environment, that before the settings file."""

from __future__ import annotations

import os
from typing import Literal, cast, get_args

from zoo.errors import ZooError
from zoo.settings import load_settings

Runner = Literal["local", "ray", "slurm"]
RUNNERS: tuple[str, ...] = get_args(Runner)
CHOSEN = "ZOO_RUNNER"


def current_runner() -> Runner:
    """The runner of `ZOO_RUNNER`, else of the settings, else local. ZooError for a name that is none."""
    name = os.environ.get(CHOSEN)
    if not name:
        return load_settings().runner
    if name not in RUNNERS:
        raise ZooError(f"{CHOSEN}={name}: no such runner; set it to {', '.join(RUNNERS[:-1])} or {RUNNERS[-1]}")
    return cast(Runner, name)
