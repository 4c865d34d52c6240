"""docs/new-model.md, run as it stands: a tiny real model from its folder to a member that was scored, blended and predicted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.chain, pytest.mark.slow, pytest.mark.timeout(900)]

GUIDE = ROOT / "docs" / "new-model.md"


def commands() -> str:
    """The guide's shell blocks in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    return "\n".join(blocks)


def programs(folder: Path) -> Path:
    """A folder with `zoo` and `ensemble` as this checkout's, whether or not they are on the PATH."""
    folder.mkdir()
    for name in ("zoo", "ensemble"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def test_the_guide_works_as_it_stands(tiny_llama: Path, tmp_path: Path) -> None:
    text = commands()
    assert "MODEL=path/to/model-folder " in text, "the one line that every reader changes"
    script = text.replace("MODEL=path/to/model-folder ", f"MODEL={tiny_llama} ")
    environment = {**os.environ, "PATH": f"{programs(tmp_path / 'bin')}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = f"{GUIDE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    started = time.monotonic()
    done = subprocess.run(["bash", "-eu"], input=script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    print(f"{time.monotonic() - started:.0f} s\n{done.stdout}\n{done.stderr}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    assert "wrote " in done.stdout and "zoo run my-model" in done.stdout, "register says what to run next"
    assert "my-model@ab-511" in done.stdout and "lexical@ab" in done.stdout, "both are on the leaderboard"
    assert "my-model version 1 is now champion" in done.stdout
    assert "my-model" in (tmp_path / "plan.html").read_text() or "my-model" in (tmp_path / "plan.json").read_text()
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 101
