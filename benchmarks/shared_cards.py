"""Trainings that share a GPU: `zoo experiment --jobs N`, how long it takes, what each run took and what the card held.

    python benchmarks/shared_cards.py MODEL_FOLDER --jobs 5 [--runs 5] [--rows 4000] [--set KEY=VALUE] [-o shared_cards.md]
    python benchmarks/shared_cards.py TINY_FOLDER --entry tiny --jobs 2 --rows 60 --set train.max_rows=20

Trains one entry with as many seeds as there are runs, on generated battles (`zoo data sample`), in a home of its own that is
removed. `--entry`: the entry that the model folder is of; entries of ZOO_ENTRIES count. Runs one at a time and N at a time are
timed one after the other, each from an empty store that holds the weights alone. `--fill GIB` holds so much of the card
meanwhile, as another program would, so that runs must wait for each other.

Printed: seconds, runs that were tried again, the most that the driver showed in use, and of each run what was counted
(`zoo/experiments/needs.py`) beside torch's own peak.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.entries.load import load_entry, override
from zoo.experiments.needs import need_of
from zoo.store import list_artifacts
from zoo.targets import machine_fingerprint

GIB = 2**30
RECIPE = 'question = "?"\ndata = "battles.csv"\ntarget = "cpu"\nuntil = "train"\n'
ZOO = (sys.executable, "-m", "zoo")


def recipe(entry: str, runs: int, settings: list[str]) -> str:
    """As many runs of one entry as asked for, which differ in the seed."""
    text = RECIPE
    for seed in range(runs):
        listed = ", ".join(f'"{setting}"' for setting in [*settings, f"train.seed={seed}"])
        text += f'[[runs]]\nentry = "{entry}"\nname = "seed {seed}"\nset = [{listed}]\n'
    return text


class Used:
    """The most memory of all GPUs that the driver showed in use, looked at twice a second."""

    def __init__(self) -> None:
        self.most, self._ended = 0, threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while shutil.which(command[0]) and not self._ended.wait(0.5):
            shown = subprocess.run(command, capture_output=True, text=True).stdout.split()
            self.most = max(self.most, *(int(mib) << 20 for mib in shown))

    def end(self) -> int:
        self._ended.set()
        return self.most


@contextmanager
def filled(gib: float) -> Iterator[None]:
    """Hold so much of the first GPU in another process."""
    if not gib:
        yield
        return
    hold = f"import torch; x = torch.empty({int(gib * GIB)}, dtype=torch.uint8, device='cuda'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def timed(folder: Path, jobs: int, environment: dict[str, str], fill: float) -> tuple[str, list[str]]:
    """A row for so many runs at a time, and what was said of runs that were tried again or failed."""
    used, started = Used(), time.monotonic()
    command = [*ZOO, "experiment", str(folder / "001-seeds"), "--data-dir", str(folder), "--jobs", str(jobs)]
    with filled(fill):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds, most = time.monotonic() - started, used.end()
    notes = [line for line in done.stderr.splitlines() if "out of memory" in line or "error" in line]
    again = sum("once more" in line for line in notes)
    return f"| {jobs} | {seconds:.1f} | {again} | {done.returncode} | {most / GIB:.2f} |", notes


def needs(store: Path, entry_name: str, settings: list[str]) -> list[str]:
    """What was counted for a run, and torch's peaks of the trainings."""
    need = need_of(override(load_entry(entry_name), settings), store)
    peaks = [artifact.manifest.measurements.peak_bytes / GIB for artifact in list_artifacts(store, "train")]
    counted = f"{need.bytes / GIB:.2f}" if need.bytes else "not known"
    shown = ", ".join(f"{peak:.2f}" for peak in peaks)
    return [f"Counted for a run: {counted} GiB. Peaks of the trainings: {shown} GiB."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--entry", default="smollm2-135m")
    parser.add_argument("--jobs", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--fill", type=float, default=0.0, metavar="GIB")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `zoo run`")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    lines = [f"{machine_fingerprint()}; {options.entry}, {options.runs} runs, {options.rows} battles", ""]
    lines += ["| jobs | seconds | tried again | exit code | most in use, GiB |", "|---|---|---|---|---|"]
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "001-seeds").mkdir()
        (folder / "001-seeds" / "recipe.toml").write_text(recipe(options.entry, options.runs, options.set))
        subprocess.run([*ZOO, "data", "sample", str(folder / "battles.csv"), "--rows", str(options.rows)], check=True)
        for jobs in dict.fromkeys([1, options.jobs]):
            home = folder / f"home-{jobs}"
            environment = {**os.environ, "ZOO_HOME": str(home)}
            subprocess.run([*ZOO, "fetch", options.entry, "--source", str(options.model)], env=environment, check=True)
            row, said = timed(folder, jobs, environment, options.fill)
            lines.append(row)
            notes += said
            print(row, flush=True)
        lines += ["", *needs(home / "store", options.entry, options.set), *notes]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
