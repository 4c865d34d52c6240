"""Memory of the scoring stage and of its engine while thousands of rows go by: does it level off?

    python benchmarks/score_memory.py --model SMOLLM2 --rows 3000 --target cpu
    python benchmarks/score_memory.py --model FOLDER --rows 25000 --target h200 --dtype auto --chunk-rows 256

Short rows (32 tokens), so that many pass in minutes: what could grow grows by rows and chunks, not by tokens. Prints JSON with
anonymous resident MiB (files mapped from the page cache left out) of the stage's process and of its engines after each chunk.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
from pathlib import Path

import score_speed

from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, ServeSpec, Variant
from zoo.pipeline.runners.local import descendants
from zoo.stages.score import stage as score
from zoo.stages.score.placement import places
from zoo.targets import load_target, visible_gpus

CAP = 32
TEMPLATE = "{prompt}\nA: {response_a}\nB: {response_b}\nBest:"
MIB = 2**20


def request_of(args: argparse.Namespace, battles: Path) -> ScoreRequest:
    """A request for short rows; the model's folder is the parent of `model/`."""
    return ScoreRequest(
        entry="memory",
        model=Input(path=args.model, fingerprint="memory"),
        battles=Input(path=battles, fingerprint="generated"),
        held=Held(),
        selection=Selection(rows="all"),
        prompt=PromptSpec(template=TEMPLATE, max_tokens=CAP),
        spec=ScoreSpec(
            variants=(Variant(order="ab", max_tokens=CAP),),
            chunk_rows=args.chunk_rows,
            max_batched_tokens=args.batch,
            max_seqs=args.batch // CAP,
            dtype=args.dtype,
        ),
        serve=ServeSpec(),
        target=args.target,
    )


def anonymous_bytes(pid: int) -> int:
    """Resident bytes of a process that are its own; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def watch(out: Path, done: threading.Event, chunk_rows: int, samples: list[dict[str, float]]) -> None:
    """Sample both sides each time that a further chunk lies there."""
    while not done.wait(0.1):
        chunks = len(list(out.glob("ab-*/chunks/*.parquet")))
        if chunks and (not samples or samples[-1]["rows"] != chunks * chunk_rows):
            engines = sum(anonymous_bytes(process.pid) for process in descendants(os.getpid()))
            stage = anonymous_bytes(os.getpid())
            sample = {"rows": chunks * chunk_rows, "stage_mib": round(stage / MIB, 1), "engines_mib": round(engines / MIB, 1)}
            samples.append(sample)
            print(json.dumps(sample), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True, help="a folder that holds model/ with weights and tokenizer")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--chunk-rows", type=int, default=250)
    parser.add_argument("--batch", type=int, default=1024, help="tokens of a batch")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--target", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        battles, out = Path(folder) / "battles.csv", Path(folder) / "out"
        out.mkdir()
        score_speed.write_battles(battles, args.rows, CAP - 2, CAP, 12)
        done, samples = threading.Event(), list[dict[str, float]]()
        watcher = threading.Thread(target=watch, args=(out, done, args.chunk_rows, samples), daemon=True)
        watcher.start()
        request = request_of(args, battles)
        result = score.score(request, out, places(request.serve, load_target(args.target), visible_gpus()))
        done.set()
        watcher.join()
        print(json.dumps({"rows": result.measurements.rows, "run_seconds": result.measurements.run_seconds}))


if __name__ == "__main__":
    main()
