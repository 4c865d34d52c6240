"""A prediction of a notebook that is interrupted: no process is left, its file is whole, and the same call goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.paths import ROOT
from tests.helpers.predictions import ROWS, allow, check_file, chunks, make_plan, member, prepare
from tests.helpers.waiting import wait_until

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a kernel has it
import preference_zoo as pz
print(len(pz.Plan("plan.json").predict("battles.csv", output="out.csv", budget="1h")))
"""


def test_an_interrupted_prediction_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    prepare(tmp_path)
    make_plan(tmp_path, [member(tmp_path, "held@ab-512")])
    allow(tmp_path, 2)
    own = {"PYTHONPATH": str(ROOT), "ZOO_HOME": str(tmp_path / "home"), "ZOO_SETTINGS": str(tmp_path / "settings.toml")}
    start = {"cwd": tmp_path, "env": {**os.environ, **own}, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    kernel = subprocess.Popen([sys.executable, "-c", PROGRAM], **start)
    wait_until(lambda: len(chunks(tmp_path)) == 2, "two chunks", kernel)
    children = psutil.Process(kernel.pid).children(recursive=True)
    os.kill(kernel.pid, signal.SIGINT)  # to it alone: what it has started hears of it from it
    said, _ = kernel.communicate()
    assert kernel.returncode and "interrupted; the same call goes on from where it stopped" in said
    assert len(children) >= 2 and not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children)
    assert (check_file(tmp_path / "out.csv").max(axis=1) > 0.5).sum() == 20, "what was scored is in the file"
    allow(tmp_path, ROWS)
    again = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=start["env"], capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == str(ROWS), again.stderr
    assert (check_file(tmp_path / "out.csv").max(axis=1) > 0.5).sum() == ROWS - 1
    scored = [row for path in tmp_path.rglob("scored") for row in path.read_text().split()]
    assert sorted(scored, key=int) == [str(row) for row in range(ROWS - 1)], "no row is scored twice"
