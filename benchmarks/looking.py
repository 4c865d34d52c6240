"""How long it takes to look at many rows: `zoo leaderboard` and `zoo insight` on as many battles as a competition has.

`python benchmarks/looking.py [ROWS [TABLES]]` makes battles and tables of known odds in a folder of its own, imports them, and
says of each command its seconds on the wall and on the processor, and its largest memory. Figures: benchmarks/looking.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.battles import read_battles
from zoo.data.sample import write_sample

ROWS, TABLES = 57_477, 8  # the rows of the largest competition of the kind; members of a zoo


def main(rows: int, tables: int) -> None:
    """Make the tables, then time each command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        members = make(work, rows, tables)
        price = ["--target", "t4x2", "--load-seconds", "60", "--seconds-per-row", "0.1"]
        for name in members:
            timed(work, "zoo", "import", name, "--scores", f"{name}.csv", "--labels", "battles.csv", *price)
        timed(work, "zoo", "leaderboard")
        timed(work, "zoo", "insight", members[-1], "--data", "battles.csv", "-o", "insight.html")


def make(work: Path, rows: int, tables: int) -> list[str]:
    """Battles and tables of rising skill in a folder; the tables' names."""
    write_sample(work / "battles.csv", rows=rows, seed=0)
    frame = read_battles(work / "battles.csv").frame
    truth, rng = np.eye(3)[frame["label"].to_numpy()], np.random.default_rng(0)
    names = [f"member{number}" for number in range(tables)]
    for number, name in enumerate(names):
        p = np.exp(truth * (0.3 + 0.1 * number) + 0.7 * rng.normal(size=truth.shape))
        p /= p.sum(axis=1, keepdims=True)
        table = pd.DataFrame({"id": frame["id"], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
        table.to_csv(work / f"{name}.csv", index=False)
    return names


def timed(work: Path, *command: str) -> None:
    """Run a command of this package in the folder, and say what it took."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "ZOO_HOME": str(work / "mlruns")}
    subprocess.run([sys.executable, "-m", *command], cwd=work, env=environment, check=True, capture_output=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{' '.join(command[:3]):40} {wall:6.1f} s, {processor:6.1f} s of processor, {after.ru_maxrss / 2**20:.2f} GiB",
        flush=True,
    )


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:] or (ROWS, TABLES)))
