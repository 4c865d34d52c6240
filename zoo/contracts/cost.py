"""What a member costs on a target."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zoo.contracts.base import Contract, Seconds, added_later


class Foretold(Contract):
    """How a cost was told that nobody measured on its target, and how far it may be off.

    `as_entry`: ENTRY@VARIANT whose cost it is. `low` and `high`: factors on the seconds, between which about 80 in 100 true
    times lie; `high_submitted`: as `high`, of a Kaggle submission, whose machines took longer.
    """

    as_entry: str
    basis: Literal["measured", "scaled", "published", "rates"]
    low: Annotated[float, Field(gt=0, le=1)]
    high: Annotated[float, Field(ge=1)]
    high_submitted: Annotated[float, Field(ge=1)] | None = None


class Cost(Contract):
    """Seconds of one member on one target.

    Load + sum over rows of (per_row + per_token * n + per_token_sq * n**2). `load_seconds` is from process start to the first
    scored row. Variants of one checkpoint that run in one process pay it once. `gpus` is how many of the target's devices one
    copy occupies.
    """

    target: str
    load_seconds: Seconds
    seconds_per_row: Seconds = 0.0
    seconds_per_token: Seconds = 0.0
    seconds_per_token_sq: Seconds = 0.0
    gpus: Annotated[int, Field(ge=0)] = 1
    measured_rows: int = 0
    measured_tokens: int = 0
    machine: str = Field("", description="fingerprint of the machine that was measured; empty: declared, not measured")
    pieces: tuple[tuple[int, int, int, float], ...] = Field(
        (), description="what it was fitted to, for an interval: rows, tokens, tokens squared and seconds of timed pieces"
    )
    like: str = added_later("", description="ENTRY or ENTRY@VARIANT whose forecast prices an imported table on any target")
    priced: bool = added_later(True, description="False: nobody has said what it costs, or it is priced by `like`")
    forecast: Foretold | None = added_later(None, description="of a cost that was not measured on its target")
