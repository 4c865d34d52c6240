"""Does `ensemble predict` keep its deadline? Run it with budgets from tight to ample and print what it predicted and took.

    python benchmarks/predict_deadline.py plan.json test.csv [--runs 10] [--tightest 0.1] [--amplest 2.0] [-o table.md]

Budgets go in equal ratios from `--tightest` to `--amplest` times what the plan predicts for the file with its margin, 3 s at
least. Each run is a process of its own, timed from outside, in an empty work folder, so that none takes over another's rows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.plan import Plan, load_plan
from ensemble.predict.replan import predicted_row_seconds
from ensemble.predict.watch import clock
from zoo.data.battles import Battles, count_characters, read_battles
from zoo.scores.tables import read_submission
from zoo.settings import home
from zoo.targets import machine_fingerprint

SHORTEST_BUDGET_SECONDS = 3.0
COMMAND = "import sys; from ensemble.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Run:
    """One prediction as seen from outside, and what its report says."""

    allowed: float
    actual: float
    code: int
    valid: bool
    report: dict

    @property
    def kept(self) -> bool:
        return self.valid and self.code == 0 and self.actual <= self.allowed


def rough_seconds(plan: Plan, battles: Battles) -> float:
    """The plan's prices summed over the file on one device, with its margin: only to choose budgets by."""
    characters = count_characters(battles.frame)
    loads = {member.checkpoint: member.cost.load_seconds for member in plan.members}
    work = sum(float(predicted_row_seconds(m, characters).sum()) * m.coverage for m in plan.members)
    return plan.margin * (plan.overhead_seconds + (sum(loads.values()) + work) / plan.target.devices)


def predict_once(plan: Path, battles: Battles, budget: float, folder: Path, store: Path) -> Run:
    """One `ensemble predict` in a home of its own that shares the store."""
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "store").symlink_to(store)
    output = folder / "submission.csv"
    arguments = ["predict", str(plan), str(battles.path), "-o", str(output), "--budget", f"{budget:.1f}s"]
    begun = time.monotonic()
    environment = os.environ | {"ZOO_HOME": str(folder / "home")}
    with (folder / "log").open("wb") as log:
        code = subprocess.run([sys.executable, "-c", COMMAND, *arguments], env=environment, stdout=log, stderr=log).returncode
    actual = time.monotonic() - begun
    reports = list((folder / "home" / "predict").glob("*/predict.json"))
    valid = output.exists() and read_submission(output)["id"].tolist() == list(battles.ids)
    return Run(budget, actual, code, valid, json.loads(reports[0].read_text()) if reports else {})


def table(runs: list[Run]) -> str:
    """A markdown table, a line a run."""
    lines = [
        "| run | predicted s | allowed s | actual s | kept, file whole | rows by members | log loss |",
        "|--:|--:|--:|--:|:-:|---|--:|",
    ]
    for number, run in enumerate(runs, start=1):
        patterns = sorted(run.report.get("patterns", {}).items(), key=lambda item: -item[1])
        rows = ", ".join(f"{count:,} {members}" for members, count in patterns) or "no report: ended by the watchdog"
        loss = run.report.get("log_loss")
        predicted = run.report.get("predicted_seconds")
        cells = (
            number,
            "" if predicted is None else f"{predicted:.1f}",
            f"{run.allowed:.1f}",
            f"{run.actual:.1f}",
            "yes" if run.kept else "NO",
            rows,
            "" if loss is None else f"{loss:.4f}",
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("battles", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--tightest", type=float, default=0.1)
    parser.add_argument("--amplest", type=float, default=2.0)
    parser.add_argument("-o", "--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    plan, battles = load_plan(options.plan), read_battles(options.battles)
    needed = rough_seconds(plan, battles)
    budgets = np.maximum(needed * np.geomspace(options.tightest, options.amplest, options.runs), SHORTEST_BUDGET_SECONDS)
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, budget in enumerate(budgets):
            folder = Path(scratch) / f"run-{number}"
            runs.append(predict_once(options.plan.absolute(), battles, float(budget), folder, home() / "store"))
            print(f"run {number + 1}: {clock(runs[-1].actual)} of {clock(budget)}", file=sys.stderr)
            if not runs[-1].kept:
                print((folder / "log").read_text(), file=sys.stderr)
    title = f"{datetime.date.today()}, {machine_fingerprint()}; {len(battles.ids):,} rows, margin {plan.margin:g}"
    text = f"{title}\n\n{table(runs)}\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return 0 if all(run.kept for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
