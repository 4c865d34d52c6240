"""Training data made of a log and of a judge's labels: time and memory of mining, certificates by source, near-copies.

`python benchmarks/made_data.py FOLDER` writes three tables as markdown. FOLDER has answers_log.jsonl.gz, human_train.csv.gz,
llm_judged.csv.gz, judge_preferences.csv.gz and lmsys_dev.csv. Seconds are of this process's children as the kernel counts
them; other processes do not add to CPU seconds, but do to the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from zoo.contracts import Held
from zoo.data.battles import read_battles
from zoo.data.splits import NEAR_PROMPTS
from zoo.report.text import Column, Format, Table, as_text
from zoo.stages.train.extra_battles import HELD_OUT, NEAR, why_not

FOLDS = 5
STEPS = ("prior", "length alone", "raw", "smoothed", "mapped", "mapped with length")


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ZOO_HOME"] = f"{scratch}/home"
        print(as_text(mining(folder, Path(scratch)), Format.markdown), "\n")
        print(as_text(certificates(folder, Path(scratch)), Format.markdown), "\n")
    print(as_text(let_through(folder), Format.markdown))


def run_zoo(*words: str | Path) -> tuple[float, float, float]:
    """Wall and CPU seconds of a command with all its processes, and the peak MiB of the largest."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "zoo", *map(str, words)], stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(f"zoo {' '.join(map(str, words))} ended with {code}")
    return time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def mining(folder: Path, scratch: Path) -> Table:
    log, never = (
        folder / "answers_log.jsonl.gz",
        ("--never", folder / "lmsys_dev.csv", "--never", folder / "human_train.csv.gz"),
    )
    asked: dict[str, tuple[str | Path, ...]] = {
        "one pair a prompt": (),
        "20,000 pairs": ("--rows", "20000"),
        "20,000 pairs, two files never met": ("--rows", "20000", *never),
        "all that --judged has": ("--per-prompt", "100000", "--judged", folder / "judge_preferences.csv.gz"),
    }
    rows = []
    for number, (name, options) in enumerate(asked.items()):
        out = scratch / ("judged.csv.gz" if "--judged" in options else f"{number}.csv.gz")
        wall, cpu, peak = run_zoo("data", "mine", log, "-o", out, *options)
        report = read_report(out)
        rows.append([name, report["rows"], report["prompts"], wall, cpu, peak])
    titles = ("rows", "prompts", "wall s", "CPU s", "peak MiB")
    return Table([Column("asked"), *(Column(title, form=",.0f") for title in titles)], rows)


def certificates(folder: Path, scratch: Path) -> Table:
    human, judged = folder / "human_train.csv.gz", scratch / "judged.csv.gz"
    first, second = scratch / "labelled.csv.gz", scratch / "preferences.csv.gz"
    run_zoo("data", "label", folder / "llm_judged.csv.gz", "--human", human, "-o", first)
    preferences = ("--judge", folder / "judge_preferences.csv.gz", "--map", Path(f"{first}.report.json"))
    run_zoo("data", "label", judged, "--human", human, "-o", second, *preferences)
    rows = [_certificate(name, judge) for out in (first, second) for name, judge in read_report(out)["judges"].items()]
    numbers = [Column(title, form=".3f") for title in (*STEPS, "below the prior", "se of it")]
    shares = [Column(title, form=".1%") for title in ("ties", "longer wins", "same in both orders", "two commonest models")]
    return Table([Column("judge"), Column("rows"), Column("humans too"), *numbers, *shares, Column("verdict")], rows)


def _certificate(name: str, judge: dict[str, Any]) -> list[Any]:
    facts, certificate = judge["all_rows"], None if judge["borrowed"] else judge["certificate"]
    steps = {step["name"]: step for step in certificate["steps"]} if certificate else {}
    losses = [steps[name]["log_loss"] if steps else None for name in STEPS]
    gain = [steps[STEPS[-1]][key] if steps else None for key in ("gain", "gain_error")]
    shares = [facts[key] for key in ("judge_ties", "judge_longer", "same_in_both_orders", "reference_share")]
    verdict = f"map of {judge['borrowed']}" if judge["borrowed"] else "refused" if judge["fault"] else "labelled"
    return [name, facts["rows"], certificate["rows"] if certificate else 0, *losses, *gain, *shares, verdict]


def let_through(folder: Path) -> Table:
    """Rows of llm_judged that are of another fold, and near-copies of a prompt of the one that is held out."""
    judged, rows = read_battles(folder / "llm_judged.csv.gz").frame, []
    for name in ("human_train.csv.gz", "lmsys_dev.csv"):
        main = read_battles(folder / name).frame
        for fold in range(FOLDS):
            reasons = why_not(judged, main, Held(n_folds=FOLDS, fold=fold), NEAR_PROMPTS)
            near = judged[reasons == NEAR]
            prompts = sorted({str(turns[0])[-60:] for turns in near["prompt"]})
            rows.append([name, fold, int((reasons == HELD_OUT).sum()), len(near), len(prompts), "; ".join(prompts)[:160]])
    columns = [
        Column("main file"),
        Column("fold held out"),
        Column("rows of that fold"),
        Column("let through by an exact check"),
    ]
    return Table([*columns, Column("prompts"), Column("which end in")], rows)


def read_report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{out}.report.json").read_text())
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
