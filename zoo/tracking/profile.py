"""What MLflow shows of a data set: rows, prompts, shares of labels, and the columns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Manifest
from zoo.errors import ZooError
from zoo.tracking.facts import Data

if TYPE_CHECKING:
    from zoo.data.battles import Battles

COLUMNS = {"id": "string", "prompt": "string", "response_a": "string", "response_b": "string"}


def with_profile(data: Data | None, manifest: Manifest, battles: Battles | None) -> Data | None:
    """Data with their profile and columns, where their file is still what the stage read.

    `battles`: the file, where it was read already.
    """
    given = manifest.request.inputs.get("battles")
    if data is None or given is None or given.fingerprint != data.digest:
        return data
    if battles is not None:
        found = _profile(battles)
    elif given.place is None or not given.place.exists():
        return data
    else:
        stat = given.place.stat()
        found = _profile_of_file(given.place, data.digest, stat.st_mtime_ns, stat.st_size)
    rows, profile, columns = found
    return replace(data, rows=rows, profile=profile, columns=columns) if columns else data


_Profile = tuple[int | None, Mapping[str, float], Mapping[str, str]]


@functools.lru_cache(maxsize=4)
def _profile_of_file(path: Path, digest: str, changed: int, size: int) -> _Profile:
    """Of a file by its content: the stages of one command are of the same one."""
    from zoo.data.battles import dataset_digest, read_battles

    try:
        battles = read_battles(path)
    except (ZooError, OSError):
        return None, {}, {}
    return _profile(battles) if dataset_digest(battles) == digest else (None, {}, {})


def _profile(battles: Battles) -> _Profile:
    from zoo.data.splits import prompt_groups

    frame = battles.frame
    labels = frame["label"].to_numpy()
    known = labels[labels >= 0]
    profile: dict[str, float] = {"usable_rows": len(frame), "labelled_rows": len(known)}
    if len(frame):
        profile["prompts"] = len(set(prompt_groups(frame).tolist()))
    for code, name in enumerate(("a", "b", "tie")):
        if len(known):
            profile[f"share_{name}"] = round(float((known == code).mean()), 4)
    columns = COLUMNS | ({"winner": "string"} if battles.labelled else {}) | dict.fromkeys(battles.extra_columns, "string")
    return len(battles.ids), profile, columns
