"""Put other training settings into an entry's TOML file, and leave the rest as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from zoo.entries.variants import rewrite_entry


def write_training(name: str, settings: Mapping[str, bool | int | float]) -> Path:
    """Set keys of an entry's [train]; the file, which is the user's own (`rewrite_entry`)."""

    def change(document: Any) -> None:
        train = document.setdefault("train", tomlkit.table())
        for key, value in settings.items():
            train[key] = value

    return rewrite_entry(name, change, "the settings")
