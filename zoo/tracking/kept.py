"""Small JSON files of the home that tracking reads: of the right shape, or out of the way.

One bad file keeps nothing else from being logged.
"""

from __future__ import annotations

import datetime
import json
import logging
import secrets
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter

logger = logging.getLogger("zoo")


def _is_time(text: str) -> str:
    try:
        datetime.datetime.fromisoformat(text).timestamp()
    except (OverflowError, OSError) as error:
        raise ValueError("no time that a clock shows") from error
    return text


Time = Annotated[str, AfterValidator(_is_time)]  # ISO 8601
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MetricName = Annotated[str, Field(pattern=r"^\w[\w\-. /:]*$", max_length=250)]  # as MLflow takes names
Numbers = dict[MetricName, float]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]  # since 1970
Facts = dict[str, str | int | float | bool]


class KeptEvent(BaseModel):
    """Something that happened within a span."""

    name: str
    at: Nanoseconds
    attributes: Facts = {}


class KeptSpan(BaseModel):
    """A span, as `zoo.tracking.spans` leaves it; `parent`: its place in the list."""

    name: str
    start: Nanoseconds
    end: Nanoseconds
    parent: Annotated[int, Field(ge=0)] | None = None
    attributes: Facts = {}
    events: list[KeptEvent] = []
    error: str = ""


def _are_of_one(spans: list[KeptSpan]) -> list[KeptSpan]:
    if any((span.parent is None) != (place == 0) or (span.parent or 0) > max(place - 1, 0) for place, span in enumerate(spans)):
        raise ValueError("the first span holds all others, and each comes after its parent")
    return spans


Spans = Annotated[list[KeptSpan], AfterValidator(_are_of_one)]


class KeptUse(BaseModel):
    """A use of a plan, as `zoo.tracking.uses` and `zoo.tracking.submissions` keep it."""

    kind: Annotated[str, Field(pattern="^(prediction|evaluation|recalibration|submission)$")]
    build: str
    dataset_digest: str
    at: Time
    seconds: Seconds
    numbers: Numbers
    params: dict[MetricName, Any]
    note: str = ""
    changed: Time | None = None
    spans: Spans = []


class _Target(BaseModel):
    name: str


class _Plan(BaseModel):
    """What logging reads of a plan, beside what it logs as it is."""

    target: _Target | str | None = None
    members: list[dict[str, Any]] = []
    fitted_rows: int | None = None
    oof_log_loss: float | None = None
    oof_log_loss_se: float | None = None


class KeptBuild(BaseModel):
    """A build, as `zoo.tracking.builds` keeps it."""

    plan: _Plan
    numbers: Numbers
    members: dict[str, str]
    built_at: Time | None = None
    spans: Spans = []


class KeptRemoval(BaseModel):
    """A removal that MLflow is still to be told of: cards are (entry, checkpoint, member)."""

    artifact: Annotated[str, Field(pattern=r"^[^/.][^/]*$")]
    fingerprint: str
    cards: list[tuple[str, str, str]]


class _Alias(BaseModel):
    checkpoint: str
    at: str


Aliases = dict[str, dict[str, _Alias]]
Notes = dict[str, dict[str, str]]


def read_kept(path: Path, shape: Any) -> Any:
    """A small file's JSON as it is, or None where it is not of this shape."""
    try:
        found = json.loads(path.read_text())
        TypeAdapter(shape).validate_python(found)
    except (OSError, ValueError, RecursionError):
        return None
    return found


def set_file_aside(path: Path, mend: str = "") -> None:
    """Keep a bad file under another name, which nothing reads, and say so in one line."""
    aside = path.with_name(f"{path.name}.broken-{secrets.token_hex(4)}")
    path.rename(aside)
    logger.warning("%s cannot be read: it is kept as %s%s", path, aside.name, mend and f"; {mend}")
