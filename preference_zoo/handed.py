"""What callers hand over, as files: one way of reading for DataFrames and paths."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from preference_zoo.shown import Notes
from zoo.errors import ZooError
from zoo.settings import home
from zoo.store import FRAMES, write_atomic

LONGEST_NAME = 60  # of a frame's file, in characters
Table = pd.DataFrame | Path | str  # whatever is read: a frame, or a file of any format that the commands read


class Handed:
    """Frames and paths that one call was given, as files while its block runs.

    Texts, of errors too, name a frame as the caller does, not by its file.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.say = Notes(self.named)

    def __enter__(self) -> Handed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.say.end()
        if self._folder is not None:
            self._folder.cleanup()
        if isinstance(error, ZooError):
            error.args = (self.named(str(error)),)

    def path(self, given: Table, name: str, *, keep: bool = False) -> Path:
        """The file of what was handed over as `name`.

        `keep`: artifacts will point to it, so a frame's file stays in the home, once for each content.
        """
        name = str(name)
        if not isinstance(given, pd.DataFrame):
            if not isinstance(given, str | os.PathLike):
                raise ZooError(f"{name}: give a pandas DataFrame or the path of a file, not a {type(given).__name__}")
            return Path(given)
        data = text_of(given).encode("utf-8", "surrogatepass")
        if keep:
            path = home() / FRAMES / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}.csv"
        else:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="preference-zoo-")
            plain = re.sub(r"[^\w.@-]", "_", name)[:LONGEST_NAME]  # a member's name is no path: it says what, and not where
            path = Path(self._folder.name) / f"{len(self._names)}" / f"{plain}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomic(path, data)
        self._names[str(path)] = name
        if keep:
            self._names[path.name] = name
        return path

    def optional(self, given: Table | None, name: str, *, keep: bool = False) -> Path | None:
        """The same, of what need not be given."""
        return None if given is None else self.path(given, name, keep=keep)

    def paths(self, given: Mapping[str, Table] | None, name: str = "scores") -> dict[str, Path]:
        """Files of tables by the members' names; none of None."""
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise ZooError(f"{name}: give tables by their members' names, {{MEMBER: TABLE}}, not a {type(given).__name__}")
        return {str(member): self.path(table, member) for member, table in given.items()}

    def named(self, text: str) -> str:
        """A text that names frames by what they were handed over as."""
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text


def text_of(frame: pd.DataFrame) -> str:
    """A frame as CSV, from which the same is read: lists become JSON, missing cells stay empty."""
    if "id" not in frame.columns and "id" in frame.index.names:
        frame = frame.assign(id=frame.index.get_level_values("id"))
    columns = {i: frame.iloc[:, i] for i in range(frame.shape[1])}  # by place: names may occur twice, which the reader refuses
    plain = {i: column.map(_cell) if column.dtype == object else column for i, column in columns.items()}
    header = [str(name) for name in frame.columns]
    written: str = pd.DataFrame(plain).to_csv(index=False, header=header, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return written


def _cell(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        value = [None if pd.api.types.is_scalar(item) and pd.isna(item) else item for item in value]
    return json.dumps(value, default=str) if isinstance(value, list | dict) else value


def check_least(least: int, **given: int | None) -> None:
    """ZooError where a whole number is less than may be, or is none; None is what nobody gave."""
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least):
            raise ZooError(f"{name}={value!r}: give a whole number from {least} on")
