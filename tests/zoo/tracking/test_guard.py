"""A guarded command ends with its starter, however that ends, and takes all that it has started with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STARTER = """
import subprocess, sys, time
child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
command = [sys.executable, "-m", "zoo.tracking.guard", sys.executable, "-c", child]
guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
print(guard.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_with_a_starter_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        guard = psutil.Process(int(starter.stdout.readline()))
        while len(family := guard.children(recursive=True)) < 2:
            time.sleep(0.05)
        starter.kill()
    gone, alive = psutil.wait_procs([guard, *family], timeout=60)
    assert not alive and len(gone) == 3


def test_its_exit_code_is_the_commands(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoo.tracking.guard", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        assert guard.wait(timeout=60) == 7


def test_stopping_the_group_stops_all() -> None:
    command = [sys.executable, "-m", "zoo.tracking.guard", sys.executable, "-c", "import time; time.sleep(600)"]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    while not (family := psutil.Process(guard.pid).children()):
        time.sleep(0.05)
    os.killpg(guard.pid, signal.SIGTERM)
    assert guard.wait(timeout=60) is not None
    assert not psutil.wait_procs(family, timeout=60)[1]


@pytest.mark.services
@pytest.mark.timeout(400)
def test_no_server_is_left_of_a_killed_ui(home: Path) -> None:
    environment = {**os.environ, "ZOO_HOME": str(home), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    command = [sys.executable, "-m", "zoo", "ui", "--port", "5170"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as ui:
        assert ui.stderr is not None
        assert any("MLflow: http://" in line for line in iter(ui.stderr.readline, ""))
        family = psutil.Process(ui.pid).children(recursive=True)
        ui.kill()
    assert len(family) >= 2
    assert not psutil.wait_procs(family, timeout=60)[1]
