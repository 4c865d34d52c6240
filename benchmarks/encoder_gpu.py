"""Rows a second and memory of encoders on one GPU: scored in float16 and float32, trained under autocast.

    python benchmarks/encoder_gpu.py FOLDER --entry deberta-v3-base [--cap 512] [--rows 1024] [--steps 8] [--as t4] [--hot 8]

The model has the entry's real shape and random weights, kept in FOLDER: speed and memory only. Rows have log-normal lengths
with a mean of 540 tokens before they are cut at the cap, the same for every case. Scored by the engine that `zoo score` starts,
in float16 and in float32: probabilities of both side by side, with a classifier so large that these are far from even; `--hot`
multiplies queries and keys, of which float16 overflows first. Then trained whole by the loop that `zoo train` runs, what is
computed again chosen by the memory that `--gib` says; with `--as` in the target's 16 bits and memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoder_speed import write_model

from zoo.contracts import Entry, TrainSpec
from zoo.entries.load import load_entry
from zoo.models.batches import all_steps
from zoo.models.prompts import Codec
from zoo.scores.tables import label_probabilities
from zoo.stages.device import compute_dtype, device, emulating, keep_to_share
from zoo.stages.encoders import load_encoder, widen_head
from zoo.stages.score.in_transformers import Engine
from zoo.stages.train import stage as train
from zoo.stages.train.examples import Example
from zoo.stages.train.learner import Learner
from zoo.targets import load_target

BATCH_ROWS, WARM_STEPS = 16, 3


def token_rows(count: int, cap: int) -> list[list[int]]:
    """Rows of random tokens with log-normal lengths, mean 540, cut at `cap`."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(6.25, 0.6, 4096))
    lengths = (lengths * (540 / lengths.mean())).clip(40, cap).astype(int)[:count]
    return [generator.integers(100, 30000, n).tolist() for n in lengths]


def write_shape(entry: Entry, folder: Path, hot: float) -> Path:
    """A model of the entry's shape; a second call finds it."""
    made = folder / f"{entry.name}-{hot:g}"
    if not (made / "tokenizer.json").exists():
        write_model(entry, made)
        model = load_encoder(made, dtype=torch.float32)
        with torch.no_grad():
            torch.manual_seed(1)
            model.classifier.weight.normal_(std=0.3)
            for name, module in model.named_modules():
                if name.rpartition(".")[2] in ("query_proj", "key_proj"):  # DeBERTa
                    module.weight.mul_(hot)
                if name.rpartition(".")[2] == "Wqkv":  # ModernBERT
                    module.weight[: 2 * len(module.weight) // 3].mul_(hot)
        model.save_pretrained(made)
    return made


def peak_gib() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def fresh() -> None:
    """Nothing of the case before is left on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def scored(model: Path, rows: list[list[int]], dtype: str, batch: int, hot: float) -> tuple[dict[str, Any], np.ndarray]:
    """What scoring costs in a dtype, after one pass to warm up, and the probabilities (rows, 3)."""
    fresh()
    engine = Engine({"model": str(model), "dtype": dtype, "max_batched_tokens": batch, "max_seqs": 256})
    arrays = [np.array(row) for row in rows]
    engine.score(arrays[: len(arrays) // 4])
    answer = engine.score(arrays)
    tokens = sum(map(len, rows))
    found = {
        "case": f"scored in {dtype}",
        "hot": hot,
        "rows_per_second": len(rows) / answer.seconds,
        "tokens_per_second": tokens / answer.seconds,
        "tokens_a_row": tokens / len(rows),
        "not_finite": int((~np.isfinite(answer.logits)).any(1).sum()),
        "peak_gib": peak_gib(),
    }
    return found, label_probabilities(np.nan_to_num(answer.logits), "ab")


def examples(rows: list[list[int]]) -> list[Example]:
    labels = np.random.default_rng(1).integers(0, 3, len(rows))
    targets = np.eye(3)[labels].tolist()
    return [Example(str(i), r, r, int(y), tuple(t)) for i, (r, y, t) in enumerate(zip(rows, labels, targets, strict=True))]


def trained(model: Path, rows: list[list[int]], spec: TrainSpec, steps: int) -> dict[str, Any]:
    """Rows and tokens a second of training all weights, over `steps` steps after some to warm up."""
    fresh()
    loaded = load_encoder(model, dtype=torch.float32, place=device())
    widen_head(loaded)
    learner = Learner(loaded, Codec(((),), (), lambda _: [], (1, 2, 3)), spec)
    data = examples(rows)
    decided = learner.fit_memory(data)
    plan = list(all_steps([len(e.ab) for e in data], spec, WARM_STEPS + steps))
    losses, started = [], 0.0
    for step, batches in enumerate(plan):
        if step == WARM_STEPS:
            wait()
            started = time.monotonic()
        losses.append(train.train_step(learner, batches, data, step, spec.learning_rate))
    wait()
    seconds = time.monotonic() - started
    done = [i for batches in plan[WARM_STEPS:] for batch in batches for i in batch]
    return {
        "case": f"trained under {str(compute_dtype()).removeprefix('torch.')}",
        "rows_per_second": len(done) / seconds,
        "tokens_per_second": sum(len(rows[i]) for i in done) / seconds,
        "steps_left_out": learner.skipped_steps,
        "last_loss": losses[-1],
        "peak_gib": peak_gib(),
        **decided,
    }


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tell(entry: Entry, cap: int, found: dict[str, Any], emulated: str | None) -> None:
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in found.items()}
    print(json.dumps({"entry": entry.name, "cap": cap, "as": emulated, **rounded}), flush=True)


def told_failure(case: str, error: Exception) -> dict[str, Any]:
    return {"case": case, "error": f"{type(error).__name__}: {str(error)[:300]}"}


def run_scoring(entry: Entry, model: Path, args: argparse.Namespace) -> None:
    rows, found = token_rows(args.rows, args.cap), {}
    for dtype in ("float32", "float16"):
        try:
            told, found[dtype] = scored(model, rows, dtype, args.batch, args.hot)
            if len(found) == 2:
                told["largest_difference"] = float(np.abs(found["float16"] - found["float32"]).max())
                told["largest_probability"] = float(found["float32"].max())
        except Exception as error:  # memory that does not do is a finding
            told = told_failure(f"scored in {dtype}", error)
        tell(entry, args.cap, told, args.emulated)


def run_training(entry: Entry, model: Path, args: argparse.Namespace) -> None:
    assert entry.train is not None
    changes = {
        "batch_rows": BATCH_ROWS,
        "micro_batch_tokens": args.micro,
        "memory_gib": args.gib,
        "gradient_checkpointing": True,
    }
    spec = entry.train.model_copy(update=changes)
    try:
        told = trained(model, token_rows((args.steps + WARM_STEPS) * BATCH_ROWS, args.cap), spec, args.steps)
    except Exception as error:
        told = told_failure("trained", error)
    tell(entry, args.cap, told, args.emulated)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--entry", required=True)
    parser.add_argument("--cap", type=int, default=512, help="tokens of a row at most")
    parser.add_argument("--rows", type=int, default=1024, help="that are scored; 0: none")
    parser.add_argument("--batch", type=int, default=16384, help="tokens of a batch that is scored")
    parser.add_argument("--steps", type=int, default=8, help="of training that are timed; 0: none")
    parser.add_argument("--micro", type=int, default=8192, help="tokens of a micro-batch")
    parser.add_argument("--gib", type=float, help="that training may take; default: what the card has")
    parser.add_argument("--hot", type=float, default=1.0, help="multiplies weights of queries and keys")
    parser.add_argument("--as", dest="emulated", metavar="TARGET", help="keep to a smaller target's 16 bits and memory")
    args = parser.parse_args()
    entry = load_entry(args.entry)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = write_shape(entry, args.folder, args.hot)
    with emulating(load_target(args.emulated) if args.emulated else None):
        keep_to_share()
        if args.rows:
            run_scoring(entry, model, args)
        if args.steps:
            run_training(entry, model, args)


if __name__ == "__main__":
    main()
