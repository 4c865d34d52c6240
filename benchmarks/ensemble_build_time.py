"""How long whole builds take, from tables to plan, and their memory.

    python benchmarks/ensemble_build_time.py [--sizes 2x57477 8x57477 ...] [--no-trees] [--trials 50]

Simulated members (`synthetic` of ensemble_search.py), nine hours on t4x2: search, judging, rehearsal, study, final fits. Each
build runs in a process of its own, with one thread for linear algebra. CPU seconds are what a build takes on an idle core;
wall seconds beside them say how busy the machine was. `--no-trees` leaves boosted trees out. Rows of earlier runs stay in the
report until the same size is run again. Writes ensemble_build_time.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from ensemble_search import machine, peak_gib, synthetic

from ensemble.search import build as build_module
from ensemble.search.build import build_plan
from ensemble.search.decide import BuildRequest, SearchLimits
from zoo.cost.price import COMPETITION_ROWS
from zoo.targets import load_target

SIZES = ("2x57477", "8x57477", "13x57477", "30x57477", "100x4000")
GOALS = {"2x57477": 60, "8x57477": 120, "13x57477": 180, "30x57477": 300, "100x4000": 60}  # wall seconds on two idle cores


def one(size: str, *, trees: bool, trials: int) -> dict[str, Any]:
    """Seconds and GiB of one build, in this process."""
    count, rows = map(int, size.split("x"))
    members, _ = synthetic(count, rows)
    if not trees:
        build_module.TREE_ROWS = rows + 1
    request = BuildRequest(load_target("t4x2"), 9 * 3600.0, COMPETITION_ROWS, limits=SearchLimits(trials=trials))
    wall, cpu = time.monotonic(), time.process_time()
    plan = build_plan(members, request, say=lambda text: print(f"{time.monotonic() - wall:7.1f} s {text}", file=sys.stderr))
    return {
        "size": size,
        "trees": trees,
        "trials": trials,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.monotonic() - wall,
        "peak_gib": peak_gib(),
        "plan_kb": len(plan.model_dump_json(indent=2)) / 1024,
        "chosen": plan.chosen,
        "load": os.getloadavg()[0],
        "date": date.today().isoformat(),
        "machine": machine(),
    }


def report(runs: list[dict[str, Any]]) -> str:
    lines = [
        "# Time of whole builds",
        "",
        *dict.fromkeys(f"{run['date']}, {run['machine'].split(', load')[0]}." for run in runs),
        "`python benchmarks/ensemble_build_time.py`, and `--no-trees`. Goals are wall seconds on two idle cores, with trials.",
        "CPU seconds are of all threads of the build; wall seconds were taken beside other work, of which the load at the end",
        "speaks (2 is what two cores can do).",
        "",
        "| members x rows | trees | trials | CPU s | goal | wall s | load | peak GiB | plan.json KB | taken |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    order = {size: place for place, size in enumerate(SIZES)}
    for run in sorted(runs, key=lambda run: (order.get(run["size"], 99), run["size"], run["trees"])):
        goal = 20 if run["size"] == "2x57477" and not run["trees"] else GOALS.get(run["size"], "")
        numbers = f"{run['cpu_seconds']:.0f} | {goal} | {run['wall_seconds']:.0f} | {run['load']:.1f} | {run['peak_gib']:.2f}"
        trees = "yes" if run["trees"] else "no"
        size = run["size"].replace("x", " x ")
        lines.append(f"| {size} | {trees} | {run.get('trials', 0)} | {numbers} | {run['plan_kb']:.0f} | {run['chosen']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--no-trees", action="store_true")
    parser.add_argument("--trials", type=int, default=50, help="of the study")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--here", action="store_true", help="one size, in this process, as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(one(options.sizes[0], trees=not options.no_trees, trials=options.trials)))
        return
    kept = options.out / "ensemble_build_time.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for size in options.sizes:
        again = [sys.executable, __file__, "--here", "--sizes", size, "--trials", str(options.trials)]
        again += ["--no-trees"] if options.no_trees else []
        found = json.loads(subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        runs = [run for run in runs if (run["size"], run["trees"]) != (found["size"], found["trees"])] + [found]
        kept.write_text(json.dumps(runs, indent=1) + "\n")
        (kept.with_suffix(".md")).write_text(report(runs))
    print(report(runs))


if __name__ == "__main__":
    main()
