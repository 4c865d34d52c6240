"""Predictions that are stopped: by a signal, by SIGKILL, by the watchdog; the file on disk is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.predictions import ROWS, check_file, chunks, make_plan, member, run, start_predict
from tests.helpers.waiting import wait_until

HANG = """
import threading
from ensemble.predict import deadline, run
hangs = threading.Event()
deadline.Deadline.now = lambda self: self.budget_seconds if hangs.is_set() else 0.0
run.job_statuses = lambda *_: (hangs.set(), time.sleep(900))
"""


def start_command(place: Path, plan: Path, **options: Any) -> subprocess.Popen[str]:
    arguments = ["predict", str(plan), str(place / "battles.csv"), "-o", str(place / "out.csv"), "--budget", "1h"]
    command = [sys.executable, "-m", "ensemble", *arguments]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options})


def warnings_of(error: str) -> list[str]:
    return [line for line in error.splitlines() if line.startswith("warning: ")]


def test_a_stop_request_writes_what_is_there_and_exits_0(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512"), member(place, "deaf@ab-512")])
    process = start_predict(place, plan)
    wait_until(lambda: len(chunks(place)) == 5, "all chunks of one and the first of the other", process)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate()
    assert process.returncode == 0, error.decode()
    assert out.decode().strip() == "SIGTERM"
    assert np.isclose(check_file(place / "out.csv").max(axis=1), 0.8).sum() == ROWS - 1


def test_the_command_says_on_stderr_which_rows_were_bad(place: Path) -> None:
    process = start_command(place, make_plan(place, [member(place, "good@ab-512")]))
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert [line for line in warnings_of(error) if " rows used; 1 cannot be: " in line]
    assert "warning" not in out


def test_the_command_says_on_stderr_that_it_was_stopped_early(place: Path) -> None:
    process = start_command(place, make_plan(place, [member(place, "hung@ab-512")]))
    wait_until(lambda: chunks(place), "a finished chunk", process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert "warning: SIGTERM: stopped early" in warnings_of(error)
    assert [line for line in warnings_of(error) if line.startswith("warning: hung@ab-512: ")]
    check_file(place / "out.csv")


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_a_pipe_that_nobody_reads_holds_nothing_up(place: Path, stream: str) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1 << 16))
    os.set_blocking(write, True)
    process = start_command(place, plan, **{stream: write})
    assert process.wait() == 0  # and does not wait for ever
    assert np.isclose(check_file(place / "out.csv").max(axis=1), 0.8).sum() == ROWS - 1
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_a_broken_pipe_ends_nothing(place: Path, stream: str) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    read, write = os.pipe()
    os.close(read)
    process = start_command(place, plan, **{stream: write})
    assert process.wait() == 0
    assert np.isclose(check_file(place / "out.csv").max(axis=1), 0.8).sum() == ROWS - 1
    os.close(write)


def test_closed_streams_end_nothing(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    process = start_command(place, plan, preexec_fn=lambda: (os.close(1), os.close(2)))
    assert process.wait() == 0
    assert np.isclose(check_file(place / "out.csv").max(axis=1), 0.8).sum() == ROWS - 1


def test_the_command_ends_with_3_where_every_row_is_the_prior(place: Path) -> None:
    process = start_command(place, make_plan(place, [member(place, "nan@ab-512")]))
    _, error = process.communicate()
    assert process.returncode == 3
    assert error.splitlines()[-1].startswith("warning: NO MEMBER CONTRIBUTED")


def test_a_stopped_orphan_of_a_killed_prediction_is_ended_by_the_same_command(place: Path) -> None:
    plan = make_plan(place, [member(place, "stopped@ab-512")])
    process = start_predict(place, plan)
    wait_until(lambda: list(place.rglob("went")), "a member that has stopped", process)
    process.kill()
    process.communicate()
    done = run(place, plan)
    assert done.patterns == {"stopped@ab-512": ROWS - 1, "prior": 1}


def test_killed_with_sigkill_it_leaves_a_whole_file(place: Path) -> None:
    plan = make_plan(place, [member(place, "hung@ab-512")])
    process = start_predict(place, plan)
    wait_until(lambda: chunks(place), "a finished chunk", process)
    process.kill()
    process.communicate()
    check_file(place / "out.csv")


def test_the_watchdog_ends_a_prediction_whose_main_thread_hangs(place: Path) -> None:
    """The clock stands still until the main thread hangs, and then the budget is spent."""
    plan = make_plan(place, [member(place, "deaf@ab-512")])
    process = start_predict(place, plan, HANG)
    _, error = process.communicate()
    assert process.returncode == 3 and b"the file on disk is whole" in error  # and no more than the prior
    check_file(place / "out.csv")
