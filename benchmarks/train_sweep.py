"""Held-out log loss of training settings, side by side.

    python benchmarks/train_sweep.py MODEL_FOLDER DATA.csv "rank=16 epochs=1" "rank=64 prompt.max_tokens=256" ...

Each argument after the data is one run of the entry `smollm2-135m` with settings changed, `[train]` unless another section is
named. Prints a markdown table. Runs in this process, one after the other, on the GPU if there is one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from zoo.contracts import Held, Input, TrainRequest
from zoo.entries.load import load_entry, override


def main(model: Path, data: Path, runs: list[str]) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from zoo.stages.train import stage as train

    base = Path(tempfile.mkdtemp())
    (base / "model").symlink_to(model.absolute())
    print(
        "| settings | held-out log loss by step | train loss, last 10 steps | rows | seconds |\n|---|---|---|---|---|",
        flush=True,
    )
    for run in runs:
        entry = override(
            load_entry("smollm2-135m"), [pair if "." in pair.split("=")[0] else f"train.{pair}" for pair in run.split()]
        )
        assert entry.prompt and entry.train
        request = TrainRequest(
            entry=entry.name,
            base=Input(path=base, fingerprint="base"),
            battles=Input(path=data, fingerprint="data"),
            held=Held(),
            prompt=entry.prompt,
            spec=entry.train,
        )
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as out:
            try:
                result = train.run(request, Path(out))
            except Exception as error:  # one bad setting must not end the sweep
                print(f"| {run} | {type(error).__name__}: {str(error).splitlines()[0]} | | | |", flush=True)
                continue
        held = " ".join(f"{step}:{value:.4f}" for step, value in result.curves["held_out/log_loss"])
        losses = [value for _, value in result.curves["train/loss"][-10:]]
        mean_loss, seconds = sum(losses) / len(losses), time.monotonic() - started
        cells = [run, held, f"{mean_loss:.4f}", f"{result.metrics['train/rows']:.0f}", f"{seconds:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
        if os.environ.get("OUT"):
            with Path(os.environ["OUT"], "sweep.jsonl").open("a") as file:
                file.write(json.dumps({"run": run, "curves": result.curves}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
