"""A home whose scoring stage is a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.clocks import Clock
from tests.helpers.predictions import BUDGET, prepare


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of predictions in this process. It stands still unless a test lets it go on, and never reaches the watchdog."""
    clock = Clock(step=BUDGET / 200, until=BUDGET - 5)
    monkeypatch.setattr("ensemble.predict.deadline.Deadline.now", lambda deadline: clock.now())
    monkeypatch.setattr("ensemble.predict.run.LONGEST_POLL_SECONDS", 0.02)
    return clock


@pytest.fixture
def place(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose `score` stage is the stand-in, on three GPUs, and a labelled file of battles with one bad row."""
    prepare(tmp_path)
    monkeypatch.setenv("ZOO_SETTINGS", str(tmp_path / "settings.toml"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")  # taken at its word: the stand-in uses none of them
    return tmp_path
