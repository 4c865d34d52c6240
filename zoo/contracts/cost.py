"""What a member costs on a target."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo.contracts.base import Contract, Seconds


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
