"""What AWQ's backends and other forms cost in label probabilities and time.

    python benchmarks/quantize.py --model FOLDER --battles CSV [--backends autoawq llm-compressor auto-round int8 ...]

All are calibrated on training rows of fold 0; the probabilities of the three labels on held-out rows are those of the
dequantized weights in transformers, activations rounded where the form rounds them, against the unquantized model's.
`theirs-int8` and `theirs-w4a8` are those forms by llm-compressor's own recipes (llm_compressor_oracle.py), on the same prompts.
With `--shape llama-3-8b --layers 2` a model of random weights takes its place and only seconds a layer are told (`--model`
gives its tokenizer).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from random_weights import SHAPES, write_llama

from zoo.contracts import SCHEMES, Held, Input, PromptSpec, QuantizeRequest, QuantizeSpec, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import select_rows
from zoo.entries.load import load_entry
from zoo.models.batches import micro_batches
from zoo.models.prompts import encode_battles, load_codec
from zoo.models.shapes import SCHEME_KEY, read_config
from zoo.scores.metrics import mean_and_error
from zoo.scores.tables import label_probabilities
from zoo.settings import backend_interpreter
from zoo.stages.compare.in_transformers import dtype_for, plain_model
from zoo.stages.compare.ladder import dequantized_model
from zoo.stages.device import device
from zoo.stages.quantize import stage as quantize
from zoo.stages.train.label_head import label_logits, pad

HELD = Held()
BACKENDS = ("autoawq", "llm-compressor", "auto-round")
THEIRS = "theirs-"
ORACLES = (f"{THEIRS}int8", f"{THEIRS}w4a8")


def probabilities(model: torch.nn.Module, rows: list[list[int]], label_ids: tuple[int, int, int]) -> np.ndarray:
    """(rows, 3) probabilities of the labels."""
    logits = np.zeros((len(rows), 3))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with torch.no_grad():
        for batch in micro_batches(order, [len(row) for row in rows], 2048):
            ids, mask = pad([rows[i] for i in batch], device())
            logits[batch] = label_logits(model.eval(), ids, mask, label_ids).cpu().numpy()
    return label_probabilities(logits, "ab")


def held_out(battles: Path, model: Path, prompt: PromptSpec, count: int) -> tuple[list[list[int]], tuple[int, int, int]]:
    """Token ids of held-out rows, cut to 256 tokens, and the labels' tokens."""
    codec = load_codec(model, prompt)
    frame = select_rows(read_battles(battles), Selection(max_rows=count), HELD)
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    return [row.ids for row in encode_battles(turns, codec, prompt, "ab", 256)], codec.label_ids


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--battles", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--block-tokens", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--backends", nargs="+", choices=(*BACKENDS, *SCHEMES[1:], *ORACLES), default=BACKENDS[:2])
    parser.add_argument("--iterations", type=int, default=200, help="of auto-round, a layer")
    parser.add_argument("--no-clip", action="store_true", help="without the search of clipping thresholds")
    parser.add_argument(
        "--shape", choices=("smollm2-135m", "llama-3-8b", "yi-34b"), help="random weights of this shape: speed only"
    )
    parser.add_argument("--layers", type=int, default=2)
    return parser.parse_args()


def request_for(backend: str, source: Path, asked: argparse.Namespace, prompt: PromptSpec) -> QuantizeRequest:
    return QuantizeRequest(
        entry="benchmark",
        model=Input(path=source.parent, fingerprint="model"),
        battles=Input(path=asked.battles, fingerprint="battles"),
        held=HELD,
        prompt=prompt,
        spec=QuantizeSpec(
            backend=backend if backend in BACKENDS else "autoawq",
            scheme=backend.removeprefix(THEIRS) if backend not in BACKENDS else "awq",
            group_size=asked.group_size,
            calibration_rows=asked.blocks,
            calibration_tokens=asked.block_tokens,
            apply_clip=not asked.no_clip,
            iterations=asked.iterations,
        ),
    )


def oracle(source: Path, target: Path, prompts: list[list[int]], request: QuantizeRequest) -> tuple[int]:
    """The form by llm-compressor, in its interpreter; its peak of GPU memory is not told."""
    job: dict[str, object] = {"model": str(source), "prompts": prompts, "target": str(target)}
    job |= {"form": request.spec.scheme, "group_size": request.spec.group_size}
    path = target.with_suffix(".json")
    path.write_text(json.dumps(job))
    python, program = backend_interpreter("llm-compressor"), Path(__file__).with_name("llm_compressor_oracle.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with path.with_suffix(".log").open("wb") as log:
        subprocess.run([python, "-P", program, path], env=environment, stdout=log, stderr=log, check=True)
    theirs = read_config(target)["quantization_config"]
    config = {**read_config(source), "quantization_config": theirs, SCHEME_KEY: request.spec.scheme}
    (target / "config.json").write_text(json.dumps(config))
    return (0,)


def timed(request: QuantizeRequest, source: Path, target: Path, *, theirs: bool) -> str:
    """Quantize, and say how long it took."""
    awq = request.spec.scheme == "awq"
    rows = quantize.calibration_blocks(request) if awq else quantize.calibration_prompts(request)
    layers = json.loads((source / "config.json").read_text())["num_hidden_layers"]
    started = time.perf_counter()
    make = oracle if theirs else quantize.run_backend if awq else quantize.run_eight_bit
    peak = make(source, target, rows, request)[-1]
    seconds = time.perf_counter() - started
    memory = f", peak {peak / 2**30:.1f} GiB of the GPU" if peak else ""
    return f"{seconds / layers:.2f} s a layer ({seconds:.0f} s for {layers}, start-up included){memory}"


def divergence(p: np.ndarray, q: np.ndarray) -> str:
    """Mean KL(p || q) with its standard error."""
    each = (p * np.log(p / q)).sum(1)
    return "KL {:.5f} ± {:.5f} nats on {} rows".format(*mean_and_error(each), len(each))


def main() -> None:
    asked = arguments()
    prompt = load_entry("smollm2-135m").prompt
    assert prompt is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source" / "model"
        source.parent.mkdir()
        if asked.shape:
            write_llama(source, asked.model / "tokenizer.json", {**SHAPES[asked.shape], "num_hidden_layers": asked.layers})
        else:
            source.symlink_to(asked.model.absolute())
            rows, label_ids = held_out(asked.battles, source, prompt, asked.rows)
            p = probabilities(plain_model(source, dtype_for(source)), rows, label_ids)
        for backend in asked.backends:
            out = folder / backend
            out.mkdir()
            request = request_for(backend, source, asked, prompt)
            line = f"{backend}: {timed(request, source, out / 'model', theirs=backend in ORACLES)}"
            if not asked.shape:
                q = probabilities(
                    dequantized_model(out / "model", folder / f"{backend}-plain", dtype_for(source)), rows, label_ids
                )
                line += f"; {divergence(p, q)}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
