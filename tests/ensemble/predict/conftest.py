"""A home whose scoring stage is a stand-in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.clocks import Clock
from tests.helpers.paths import HELPERS
from tests.helpers.predictions import BAD_ROW, BUDGET, ROWS


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
    script = tmp_path / "stand_in"
    script.write_text(f"#!{sys.executable}\n{(HELPERS / 'stand_in_scoring.py').read_text()}")
    script.chmod(0o755)
    (tmp_path / "settings.toml").write_text(f'[environments]\nscore = "{script}"\n')
    monkeypatch.setenv("ZOO_SETTINGS", str(tmp_path / "settings.toml"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")  # taken at its word: the stand-in uses none of them
    lines = ["id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"]
    for i in range(ROWS):
        winner = ",".join("1" if i % 3 == label else "0" for label in range(3))
        prompt = "not json" if str(i) == BAD_ROW else '"[""' + "why " * (1 + i % 7) + '""]"'
        lines.append(f'{i},{prompt},"[""yes""]","[""no""]",{winner}')
    (tmp_path / "battles.csv").write_text("\n".join(lines) + "\n")
    return tmp_path
