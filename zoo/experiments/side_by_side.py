"""Run an experiment's runs side by side, dealt over the GPUs at hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import IO

from zoo.contracts import Say
from zoo.errors import OutOfMemory, ZooError
from zoo.experiments.cards import Cards, Loan
from zoo.experiments.needs import need_of
from zoo.experiments.recipes import load_recipe, recipe_entries
from zoo.experiments.trials import check_labels, check_names
from zoo.targets import visible_gpus

INTERRUPTED = 130  # the exit code of a run that Ctrl-C ended
OUT_OF_MEMORY = (OutOfMemory.EXIT_CODE, -signal.SIGKILL)  # the latter by the kernel, where the host's memory is short
ZOO = (sys.executable, "-m", "zoo")  # the command line of this interpreter


def run_side_by_side(
    folder: Path, data_folder: Path, jobs: int, store: Path, *, logs: Path, only: Sequence[str] = (), say: Say
) -> None:
    """Run each of a recipe's runs in a process of its own, `jobs` at a time.

    `only`: those named there. Each gets as many GPUs as it asks for, and of each a share by its need; what does not fit waits.
    What one leaves is in the store. A run that runs out of memory beside others is run again, once, with the cards to itself.
    Another that fails does not stop the others; ZooError names those that failed, with their logs, at the end.
    """
    recipe = load_recipe(folder)
    check_names(folder, recipe, only)
    check_labels(recipe, data_folder)
    needs = [need_of(entry, store) for entry in recipe_entries(recipe)]
    logs.mkdir(parents=True, exist_ok=True)
    cards = Cards(visible_gpus(), jobs, store)
    running: list[subprocess.Popen[bytes]] = []
    stopped = Event()

    def start(number: int, *, alone: bool) -> tuple[int, Loan]:
        """Run one to its end; its exit code, and what it had."""
        command = [*ZOO, "experiment", str(folder), "--data-dir", str(data_folder), "--only", recipe.runs[number].title]
        with cards.lent(needs[number], alone=alone, stopped=stopped) as loan, _log(logs, number, again=alone) as file:
            if stopped.is_set():  # while it waited for its GPUs
                return INTERRUPTED, loan
            # A session of its own: Ctrl-C reaches it from here alone, since a second one would cut short how it ends.
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **loan.environment},
                pass_fds=[] if loan.lock < 0 else [loan.lock],
                start_new_session=True,
            )
            running.append(process)
            return process.wait(), loan

    def one(number: int) -> tuple[str, int]:
        title = recipe.runs[number].title
        code, loan = start(number, alone=False)
        if code in OUT_OF_MEMORY and not loan.whole and not stopped.is_set():
            say(f"{title}: out of memory beside other runs; once more, with its GPUs to itself")
            code, _ = start(number, alone=True)
        say(f"{title}: {'done' if code == 0 else f'failed, see {_log_path(logs, number)}'}")
        return title, code

    wanted = [number for number, run in enumerate(recipe.runs) if not only or run.title in only]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            ended = list(pool.map(one, wanted))
        except KeyboardInterrupt:  # those that wait are not started
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.send_signal(signal.SIGINT)
            raise
    failed = [f"{title} ({_log_path(logs, number)})" for number, (title, code) in zip(wanted, ended, strict=True) if code]
    if failed:
        raise ZooError(f"{folder}: {len(failed)} runs failed: {', '.join(failed)}", exit_code=1)


def _log_path(logs: Path, number: int) -> Path:
    return logs / f"{number:02d}.log"


def _log(logs: Path, number: int, *, again: bool) -> IO[bytes]:
    """A run's log, opened to write; what a first attempt wrote stays above a second one's."""
    return _log_path(logs, number).open("ab" if again else "wb")
