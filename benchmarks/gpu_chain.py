"""What the chain costs and keeps on this machine: train, merge, quantize, score, then the same rows in exact arithmetic.

    python benchmarks/gpu_chain.py smollm2-135m battles.csv --target h200 --source FOLDER [--set KEY=VALUE] [-o chain.md]
    python benchmarks/gpu_chain.py llama-3-8b battles.csv --target h200 --random smollm2-135m --source FOLDER

The first form needs weights; every stage runs as the commands run it. The log loss of each form of the model is taken on
the same held-out rows: NF4 as training measures it, merged and AWQ weights in float32 in transformers, AWQ in the engine.

`--random` measures speed and memory of a shape without having its weights: they are drawn at random, and quantized by
rounding, since the search of AWQ would find nothing in them. Prompt and tokenizer are those of the entry named there, whose
folder `--source` is. Such weights say nothing about log loss.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import random_weights

from zoo.contracts import Entry, Held, Input, Request, ScoreRequest, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import select_rows
from zoo.entries.load import load_entry, override
from zoo.experiments.run import run_chain
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.chain import battles_input, chain
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import label_probabilities, probabilities, read_scores
from zoo.settings import store_folder
from zoo.store import Artifact
from zoo.targets import machine_fingerprint

BATCH_TOKENS = 16384


def run_stages(requests: list[Request], entry: Entry, store: Path) -> tuple[list[Artifact], dict[str, float]]:
    """Run stages one by one; their artifacts and wall-clock seconds, as seen from outside."""
    artifacts, seconds = [], {}
    for request in requests:
        started = time.monotonic()
        artifacts += run_chain([request], entry, store, say=print, track=False)
        seconds[request.stage] = time.monotonic() - started
    return artifacts, seconds


def exact_probabilities(folder: Path, frame: pd.DataFrame, entry: Entry, order: Any, max_tokens: int) -> np.ndarray:
    """(rows, 3) from transformers in float32, TF32 off: what a checkpoint says, before any engine."""
    import torch
    from transformers import AutoModelForCausalLM

    from zoo.models.batches import micro_batches
    from zoo.stages.device import device
    from zoo.stages.train.label_head import label_logits, pad

    assert entry.prompt
    codec = load_codec(folder, entry.prompt)
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    rows = [e.ids for e in encode_battles(turns, codec, entry.prompt, order, max_tokens)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device()).eval()
    logits = np.zeros((len(rows), 3))
    shortest_first = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with torch.no_grad():
        for batch in micro_batches(shortest_first, [len(row) for row in rows], BATCH_TOKENS):
            logits[batch] = label_logits(model, *pad([rows[i] for i in batch], device()), codec.label_ids).cpu().numpy()
    return label_probabilities(logits, order)


def quality_lines(entry: Entry, artifacts: list[Artifact], request: ScoreRequest) -> list[str]:
    """Log loss of each form of the model on the held-out rows, and how far the engine is from its own weights."""
    from zoo.stages.quantize.awq_format import write_dequantized

    folders = {artifact.manifest.stage: artifact.path / "model" for artifact in artifacts}
    trained = next(a.manifest.metrics for a in artifacts if a.manifest.stage == "train")
    frame = select_rows(read_battles(request.battles.path), request.selection, request.held)
    labels = frame["label"].to_numpy()
    rows = f"{int(trained['val/rows'])} rows"
    lines = ["| form | engine | order | log loss |", "|---|---|---|---|"]
    lines.append(f"| base, NF4 ({rows}) | transformers | ab | {trained['val/log_loss_before']:.4f} |")
    lines.append(f"| base and adapter, NF4 ({rows}) | transformers | ab | {trained['val/log_loss']:.4f} |")
    differences = []
    with tempfile.TemporaryDirectory() as scratch:
        write_dequantized(folders["quantize"], Path(scratch) / "plain")
        for variant in request.spec.variants:
            cap = variant.max_tokens or 0
            forms = {"base": folders["fetch"], "merged": folders["merge"], "AWQ": Path(scratch) / "plain"}
            exact = {name: exact_probabilities(folder, frame, entry, variant.order, cap) for name, folder in forms.items()}
            table = read_scores(artifacts[-1].path / variant.slug / "scores.parquet").set_index("id").loc[frame["id"]]
            served = probabilities(table.reset_index())
            differences.append(float(np.abs(served - exact["AWQ"]).max()))
            for name, p in exact.items():
                lines.append(f"| {name} | transformers, float32 | {variant.order} | {log_loss_rows(p, labels).mean():.4f} |")
            lines.append(f"| AWQ | vLLM | {variant.order} | {log_loss_rows(served, labels).mean():.4f} |")
    return [
        *lines,
        "",
        f"Largest difference of a probability between vLLM and float32: {max(differences):.5f} ({len(frame)} rows)",
    ]


def cost_lines(artifacts: list[Artifact], seconds: dict[str, float]) -> list[str]:
    """A row for each stage: wall clock, loading, work, speed and peak memory."""
    lines = ["| stage | wall s | load s | run s | rows | rows/s | tokens/s | peak GiB |", "|---|---|---|---|---|---|---|---|"]
    for artifact in artifacts:
        name, m = artifact.manifest.stage, artifact.manifest.measurements
        speed = [f"{n / m.run_seconds:.0f}" if m.run_seconds and n else "" for n in (m.rows, m.tokens)]
        cells = [name, f"{seconds[name]:.1f}", f"{m.load_seconds:.1f}", f"{m.run_seconds:.1f}", str(m.rows), *speed]
        lines.append(f"| {' | '.join(cells)} | {m.peak_bytes / 2**30:.2f} |")
    return lines


def random_chain(entry: Entry, requests: list[Request], store: Path, folder: Path) -> tuple[list[Artifact], dict[str, float]]:
    """The chain with rounding in place of the quantize stage."""
    artifacts, seconds = run_stages(requests[:3], entry, store)
    assert entry.quantize
    started = time.monotonic()
    random_weights.write_rounded(artifacts[-1].path / "model", folder / "rounded" / "model", entry.quantize.group_size)
    print(f"rounded in {time.monotonic() - started:.0f} s")
    model = Input(path=folder / "rounded", fingerprint="random")
    scored, score_seconds = run_stages([requests[4].model_copy(update={"model": model})], entry, store)
    return artifacts + scored, seconds | score_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry")
    parser.add_argument("battles", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--source", help="model folder; default: the hub, or packages")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `zoo run`")
    parser.add_argument("--random", metavar="ENTRY", help="draw Llama 3 8B weights at random; read prompts as this entry does")
    parser.add_argument(
        "--shape", action="append", default=[], metavar="KEY=NUMBER", help="changes to config.json with --random"
    )
    parser.add_argument("--max-rows", type=int, help="score at most this many held-out rows")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()

    entry = load_entry(args.entry)
    if args.random:
        entry = entry.model_copy(update={"prompt": load_entry(args.random).prompt})
    entry = override(entry, args.set)
    store, folder = store_folder(), store_folder().parent / "random"
    if args.random:
        shape = {key: int(value) for key, value in (item.split("=") for item in args.shape)}
        random_weights.write_llama(folder / "model", Path(args.source) / "tokenizer.json", shape)
        args.source = str(folder / "model")
    selection = Selection(max_rows=args.max_rows)
    requests = chain(
        entry, battles_input(args.battles), args.target, store, held=Held(), selection=selection, source=args.source
    )
    run = random_chain(entry, requests, store, folder) if args.random else run_stages(requests, entry, store)
    lines = [f"{machine_fingerprint()}, {entry.name}", "", *cost_lines(*run)]
    if not args.random:
        assert isinstance(requests[-1], ScoreRequest)
        lines += ["", *quality_lines(entry, run[0], requests[-1])]
    packages = run[0][-1].manifest.packages
    lines += ["", ", ".join(f"{name} {version}" for name, version in packages.items())]
    text = "\n".join(lines)
    if args.output:
        args.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
