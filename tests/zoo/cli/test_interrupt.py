"""Ctrl-C while a stage runs: the stage ends, nothing is left behind, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from zoo.cli.base import INTERRUPTED
from zoo.data.sample import write_sample

SECONDS = 120
# `zoo train lexical` without its mirror in MLflow, which takes longer than all the rest.
PROGRAM = """
from pathlib import Path
from zoo.cli.base import new_app, run_app, say
from zoo.contracts import Held, Selection
from zoo.entries.load import load_entry
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain
from zoo.settings import store_folder

app = new_app("A training.")

@app.command()
def train(data: Path) -> None:
    entry, store = load_entry("lexical"), store_folder()
    requests = chain(entry, battles_input(data), "cpu", store, held=Held(rule="near-prompts-1"), selection=Selection())
    print(run_chain(requests[:1], entry, store, say=say, track=False)[0].manifest.metrics)

run_app(app, "training")
"""


def start(battles: Path) -> subprocess.Popen[str]:
    """A training in a session of its own, as a terminal's foreground job has, with SIGINT not ignored."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", str(battles)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def alive_in(session: int) -> list[psutil.Process]:
    """Processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.services
@pytest.mark.parametrize("who", ["terminal", "parent"])
def test_an_interrupt_ends_the_stage_and_the_command_goes_on(who: str, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group; `kill -INT` to the one process."""
    battles = tmp_path / "battles.csv"
    write_sample(battles, 800, 0)
    process = start(battles)
    assert process.stderr is not None
    for line in process.stderr:  # the stage's own process says this one
        if "reading 800 battles" in line:
            break
    else:
        pytest.fail("the stage never began")
    (os.killpg if who == "terminal" else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == INTERRUPTED and "Traceback" not in errors
    assert alive_in(process.pid) == []
    again = start(battles)
    out, errors = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, errors
    assert "val/log_loss" in out


def test_a_stage_that_does_not_hear_is_ended_by_force() -> None:
    from zoo.pipeline.runner import interrupt

    deaf = "import signal, time\nfor n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n"
    process = subprocess.Popen([sys.executable, "-c", deaf + "print(1, flush=True)\ntime.sleep(1000)"], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    interrupt(process, grace_seconds=0.05)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()
