"""Training in float16 with loss scaling beside bfloat16 on one GPU: held-out log loss by seed, then speed and memory as a T4.

    python benchmarks/train_float16.py --model smollm2-135m=FOLDER --model gemma-3-270m=FOLDER --data human_train.csv.gz

Loss: each model's fold 0 by its entry's settings in the train stage itself, a process a training, `--jobs` at a time:
bfloat16, and float16 as `zoo train --as t4` has it, with the same seeds; `--rows` rows are learned from and all held-out rows
judged. Speed: `benchmarks/train_speed.py` on random weights, by shape and case, as the card is and `--as t4`. What would begin
after `--seconds` is left out and named. Prints markdown; needs a GPU with bfloat16. Without --model and --data only speed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import Held, Input, StageResult, TrainRequest, changed
from zoo.entries.load import load_entry
from zoo.pipeline.runners.environment import stage_environment
from zoo.scores.metric_names import HELD_OUT_LOSS, LOSS_SCALE, SKIPPED_STEPS, TRAIN_SPEED
from zoo.store import RESULT
from zoo.targets import machine_fingerprint

HERE = Path(__file__).parent
# Shape, case and what it is run as: bfloat16 and float16 with one memory, then the two sizes that people train on a T4.
SPEED = (
    ("llama-3-8b", "zoo-15-no-dropout", None),
    ("llama-3-8b", "zoo-t4", "t4"),
    ("gemma-2-9b", "zoo-t4-2k", "t4"),
    ("llama-3-8b", "zoo-15", None),
)


def train_request(name: str, folder: Path, data: Path, seed: int, rows: int, emulates: str | None) -> TrainRequest:
    """The training of fold 0 of an entry on a model folder; `folder` holds config.json, tokenizer.json and the weights."""
    entry = load_entry(name)
    assert entry.train is not None and entry.prompt is not None
    settings = {"seed": seed, "max_rows": rows, "eval_rows": 2000, "evals_per_epoch": 2, "patience": None, "extra": ()}
    base = Input(path=folder.parent, fingerprint="benchmark")
    return TrainRequest(
        entry=name,
        base=base,
        battles=Input(path=data, fingerprint="benchmark"),
        held=Held(rule="near-prompts-1"),
        prompt=entry.prompt,
        spec=changed(entry.train, **settings),
        emulates=emulates,
    )


def train(job: dict[str, Any], args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One training by the stage in a process of its own; its last held-out log loss, and what float16 left out."""
    out = scratch / f"{job['model']}-{job['dtype']}-{job['seed']}"
    out.mkdir()
    if time.monotonic() - args.started > args.seconds:
        return {**job, "left_out": "no time"}
    emulates = "t4" if job["dtype"] == "float16" else None
    request = train_request(job["model"], Path(job["folder"]), args.data, job["seed"], args.rows, emulates)
    (out / "request.json").write_text(request.model_dump_json())
    command = [sys.executable, "-m", "zoo.stages", "train", str(out / "request.json"), str(out)]
    # The stage's share of the card: several of them work on it at once.
    done = subprocess.run(command, env=stage_environment("train"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode:
        return {**job, "left_out": (out / "stage.log").read_text()[-400:].replace("\n", " ")}
    result = StageResult.model_validate_json((out / RESULT).read_text())
    found = {"log_loss": result.curves[HELD_OUT_LOSS][-1][1], "before": result.curves[HELD_OUT_LOSS][0][1]}
    names = {"skipped": SKIPPED_STEPS, "scale": LOSS_SCALE, "tokens_per_second": TRAIN_SPEED}
    return {**job, **found, **{key: result.metrics.get(name) for key, name in names.items()}}


def losses(args: argparse.Namespace) -> None:
    """Both dtypes of every model and seed, and a table of them."""
    models = dict(given.split("=", 1) for given in args.model)
    jobs = [
        {"model": name, "folder": folder, "dtype": dtype, "seed": seed}
        for seed in range(args.seeds)
        for name, folder in models.items()
        for dtype in ("bfloat16", "float16")
    ]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(args.jobs) as pool:
        links = link_models(models, Path(scratch))
        jobs = [{**job, "folder": str(links[str(job["model"])])} for job in jobs]
        done = list(pool.map(lambda job: train(job, args, Path(scratch)), jobs))
    print("| model | seed | untrained | bfloat16 | float16 | difference | steps left out | last loss scale |")
    print("|---|---|---|---|---|---|---|---|")
    for name in models:
        pairs = [pair for seed in range(args.seeds) if (pair := pair_of(done, name, seed))]
        for seed, (wide, narrow) in enumerate(pairs):
            cells = [f"{x:.4f}" for x in (wide["before"], wide["log_loss"], narrow["log_loss"])]
            cells += [f"{narrow['log_loss'] - wide['log_loss']:+.4f}", f"{narrow['skipped']:.0f}", f"{narrow['scale']:g}"]
            print(f"| {name} | {seed} | {' | '.join(cells)} |")
        if len(pairs) > 1:
            print(summary(name, pairs))
    for one in done:
        if "left_out" in one:
            print(f"\nleft out: {one['model']}, {one['dtype']}, seed {one['seed']}: {one['left_out']}")


def link_models(models: dict[str, str], scratch: Path) -> dict[str, Path]:
    """Each model's folder as the stage reads it, `<base>/model`."""
    links = {}
    for name, folder in models.items():
        links[name] = scratch / f"base-{name}" / "model"
        links[name].parent.mkdir()
        links[name].symlink_to(Path(folder).absolute())
    return links


def pair_of(done: list[dict[str, Any]], name: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    found = {one["dtype"]: one for one in done if (one["model"], one["seed"]) == (name, seed) and "log_loss" in one}
    return (found["bfloat16"], found["float16"]) if len(found) == 2 else None


def summary(name: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """The mean difference beside what a seed moves: the deviation of the same dtype over seeds."""
    loss = np.array([[one["log_loss"] for one in pair] for pair in pairs])
    difference, moved = loss[:, 1] - loss[:, 0], loss.std(axis=0, ddof=1).mean()
    within = "within" if np.abs(difference).mean() <= moved else "beyond"
    return f"| {name} | all | | | | {difference.mean():+.4f} | {within} | a seed moves {moved:.4f} |"


def speeds(args: argparse.Namespace) -> None:
    """Each shape and case in a process of its own: tokens a second, memory, and the share of the matrix rate."""
    print("\n| shape | case | card | tokens/s | peak GiB | layers computed again | share of the matrix rate |")
    print("|---|---|---|---|---|---|---|")
    for shape, case, emulated in SPEED if not args.speed else [tuple(s.split(",")) for s in args.speed]:
        if time.monotonic() - args.started > args.seconds:
            print(f"| {shape} | {case} | no time | | | | |", flush=True)
            continue
        command = [sys.executable, str(HERE / "train_speed.py"), "--shape", shape, "--case", case, "--steps", str(args.steps)]
        command += ["--as", emulated] if emulated else []
        command += ["--layers", str(args.layers)] if args.layers else []
        environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        lines = done.stdout.splitlines()
        found = json.loads(lines[-1]) if len(lines) > 1 else {"error": done.stderr.strip()[-300:]}
        if "error" in found:
            print(f"| {shape} | {case} | {found['error']} | | | | |", flush=True)
            continue
        cells = [lines[0].split(",")[0] + "," + lines[0].split(",")[2], f"{found['tokens_per_second']:,.0f}"]
        cells += [f"{found['peak_gib']:.2f}", f"{found.get('memory/checkpointed_layers', float('nan')):.0f}"]
        print(f"| {shape} | {case} | {' | '.join(cells)} | {found['share_of_matrix_rate']:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="ENTRY=FOLDER", help="pretrained weights of an entry")
    parser.add_argument("--data", type=Path, help="labelled battles")
    parser.add_argument("--rows", type=int, default=1000, help="rows to learn from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=4, help="trainings at a time")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps that speed is measured over")
    parser.add_argument("--layers", type=int, help="fewer decoder layers than the shapes have")
    parser.add_argument("--speed", action="append", metavar="SHAPE,CASE[,TARGET]", help="instead of the four usual ones")
    parser.add_argument("--seconds", type=float, default=330, help="nothing begins later than this")
    args = parser.parse_args()
    args.started = time.monotonic()
    if bool(args.model) != bool(args.data):
        parser.error("--model and --data go together")
    if args.speed:
        args.speed = [f"{given}," if given.count(",") == 1 else given for given in args.speed]
    print(f"{machine_fingerprint()}; {args.rows} rows, {args.seeds} seeds, {args.jobs} trainings at a time\n", flush=True)
    if args.model:
        losses(args)
    print(f"\n{time.monotonic() - args.started:.0f} s so far", flush=True)
    speeds(args)
    print(f"\n{time.monotonic() - args.started:.0f} s in all")


if __name__ == "__main__":
    main()
