"""Run an experiment's runs side by side, dealt over the GPUs at hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.experiments.recipes import load_recipe, recipe_entries
from zoo.experiments.trials import check_labels, check_names
from zoo.targets import only_gpus, visible_gpus

INTERRUPTED = 130  # the exit code of a run that Ctrl-C ended
ZOO = (sys.executable, "-m", "zoo")  # the command line of this interpreter


class Cards:
    """The GPUs of this process, lent to runs: as few runs a GPU as `jobs` at a time allow."""

    def __init__(self, names: Sequence[str], jobs: int) -> None:
        self.names, self.most = tuple(names), -(-jobs // max(1, len(names)))
        self._runs: Counter[str] = Counter()
        self._changed = Condition()

    @contextmanager
    def lent(self, count: int) -> Iterator[dict[str, str]]:
        """The environment of a run on `count` GPUs, once so many have room for it.

        Nothing to set where there is no GPU.

        A run that asks for more than there are gets all of them, and says itself what it lacks.
        """
        if not self.names:
            yield {}
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._free()) >= min(count, len(self.names)))
            taken = self._free()[:count]
            self._runs.update(taken)
        try:
            yield only_gpus(taken)
        finally:
            with self._changed:
                self._runs.subtract(taken)
                self._changed.notify_all()

    def _free(self) -> list[str]:
        """GPUs with room for another run, those with the fewest first."""
        return sorted((name for name in self.names if self._runs[name] < self.most), key=self._runs.__getitem__)


def run_side_by_side(folder: Path, data_folder: Path, jobs: int, *, logs: Path, only: Sequence[str] = (), say: Say) -> None:
    """Run each of a recipe's runs in a process of its own, `jobs` at a time.

    `only`: those named there. Each gets as many GPUs as it asks for; what one leaves is in the store.

    A run that fails does not stop the others; ZooError names those that failed, with their logs, at the end.
    """
    recipe = load_recipe(folder)
    check_names(folder, recipe, only)
    check_labels(recipe, data_folder)
    gpus = [entry.train.gpus if entry.train else 1 for entry in recipe_entries(recipe)]
    logs.mkdir(parents=True, exist_ok=True)
    cards = Cards(visible_gpus(), jobs)

    def one(number: int) -> tuple[str, Path, int]:
        title, log = recipe.runs[number].title, logs / f"{number:02d}.log"
        command = [*ZOO, "experiment", str(folder), "--data-dir", str(data_folder), "--only", title]
        with cards.lent(gpus[number]) as place, log.open("wb") as file:
            if stopped.is_set():  # while it waited for its GPUs
                return title, log, INTERRUPTED
            # A session of its own: Ctrl-C reaches it from here alone, since a second one would cut short how it ends.
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **place}, start_new_session=True
            )
            running.append(process)
            code = process.wait()
        say(f"{title}: {'done' if code == 0 else f'failed, see {log}'}")
        return title, log, code

    wanted = [number for number, run in enumerate(recipe.runs) if not only or run.title in only]
    running: list[subprocess.Popen[bytes]] = []
    stopped = Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            failed = [(title, log) for title, log, code in pool.map(one, wanted) if code]
        except KeyboardInterrupt:  # those that wait are not started
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.send_signal(signal.SIGINT)
            raise
    if failed:
        raise ZooError(f"{folder}: {len(failed)} runs failed: {', '.join(f'{t} ({log})' for t, log in failed)}", exit_code=1)
