"""What `--runner ray` adds to `--runner local`: seconds of start and of run, memory of who feeds the engines, and files.

    python benchmarks/runner_overhead.py --rows 10000 --turns 2

    python benchmarks/runner_overhead.py --rows 1000000 --turns 1 --runners ray

A tiny Llama (random weights) on processors and rows of some 30 tokens: what a chunk costs beside its tokens shows most there.
Runs take turns, with nothing else changed; the start of Ray on this host belongs to what is measured. Memory is given where it
was largest (the battles are read), and at the first and last look while chunks come in. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, StageResult, Variant
from zoo.pipeline.runner import start_stage
from zoo.scores.tables import read_scores

MIB = 2**20
LOOK_SECONDS = 0.5


def write_battles(path: Path, rows: int) -> None:
    """Battles of a few words, no two alike."""
    words = [f"{n} {n * n % 97}" for n in range(rows)]
    turns = {
        name: [json.dumps([f"{word} {k}"]) for word in words] for k, name in enumerate(("prompt", "response_a", "response_b"))
    }
    pd.DataFrame({"id": range(rows), **turns}).to_csv(path, index=False)


def request_of(folder: Path, chunk_rows: int) -> ScoreRequest:
    return ScoreRequest(
        entry="tiny",
        model=Input(path=folder, fingerprint="tiny"),
        battles=Input(path=folder / "battles.csv", fingerprint="generated"),
        held=Held(),
        selection=Selection(rows="all"),
        prompt=PromptSpec(template=TEMPLATE, max_tokens=64),
        spec=ScoreSpec(
            variants=(Variant(max_tokens=64),), chunk_rows=chunk_rows, max_seqs=64, max_batched_tokens=4096, dtype="float32"
        ),
        target="cpu",
    )


def watch(process: subprocess.Popen[bytes], out: Path) -> tuple[int, list[int]]:
    """The most bytes of a process until it ends, and its bytes at each look while chunks come in and not all have."""
    driver, most, scoring, chunks = psutil.Process(process.pid), 0, list[int](), 0
    while process.poll() is None:
        try:
            size = driver.memory_info().rss
        except psutil.Error:
            break
        most = max(most, size)
        before, chunks = chunks, sum(1 for _ in out.glob("*/chunks/*.parquet"))
        if chunks > before > 0:
            scoring.append(size)
        time.sleep(LOOK_SECONDS)
    return most, scoring


def run(request: ScoreRequest, out: Path, runner: str) -> dict[str, Any]:
    """One run to its end; seconds, and the memory of the process that feeds the engines."""
    out.mkdir()
    (out / "request.json").write_text(request.model_dump_json())
    started = time.monotonic()
    process = start_stage(request, out, environment={"ZOO_RUNNER": runner, "RAY_ADDRESS": "local"})
    most, scoring = watch(process, out)
    if process.wait():
        sys.exit((out / "stage.log").read_text()[-2000:])
    wall = time.monotonic() - started
    files = sum(path.is_file() for path in out.rglob("*"))
    measured = StageResult.model_validate_json((out / "result.json").read_text()).measurements
    return {
        "wall_seconds": round(wall, 1),
        "run_seconds": round(measured.run_seconds, 1),
        "start_seconds": round(wall - measured.run_seconds, 1),
        "rows_per_second": round(measured.rows / measured.run_seconds, 1),
        "driver_mib": round(most / MIB),
        "scoring_mib": [round(size / MIB) for size in (*scoring[:1], *scoring[-1:])],
        "files": files,
        "tokens_per_row": round(measured.tokens / measured.rows, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--chunk-rows", type=int, default=512)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--runners", nargs="+", default=["local", "ray"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_llama(folder / "model")
        write_battles(folder / "battles.csv", args.rows)
        request = request_of(folder, args.chunk_rows)
        for turn in range(args.turns):
            for runner in args.runners:
                out = folder / f"{runner}-{turn}"
                print(json.dumps({"runner": runner, "rows": args.rows, **run(request, out, runner)}), flush=True)
        tables = [read_scores(path) for path in folder.glob("*-0/*/scores.parquet")]
        print(json.dumps({"same_table": all(table.equals(tables[0]) for table in tables)}))


if __name__ == "__main__":
    main()
