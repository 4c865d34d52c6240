"""Tokens a second of the forms of one shape, chunk by chunk by turns, with the kernels that multiplied.

Weights are drawn at random, finite, and rounded to each form without any search: speed and memory, no log loss. Every engine is
a process of its own, loaded before anything is timed; whatever else the machine does falls on all of them alike. Ways are the
engine as `zoo score` starts it; with `:tuned` plain `vllm.LLM` with settings chosen by hand, with `:classifier` the same layers
under a classifier's head, pooled.

    python benchmarks/forms_speed.py --shape llama-3-8b --tokenizer FOLDER --ways awq,int8,fp8,int8:tuned
    python benchmarks/forms_speed.py --shape llama-3-8b --tokenizer FOLDER --ways awq,fp16,w4a16,w4a8 --dtype float16
    python benchmarks/forms_speed.py --shape llama-3-8b --tokenizer FOLDER --ways awq,awq:classifier,int8,int8:classifier

On processors a folder of checkpoints that were made by `zoo quantize` is timed: `--models awq=FOLDER,int8=FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import random_weights
import score_turns
import torch
from score_speed import write_battles

from zoo.contracts import ScoreSpec, ServeSpec, Variant
from zoo.data.battles import read_battles
from zoo.entries.load import load_entry
from zoo.models.prompts import encode_battles, load_codec
from zoo.stages.quantize.forms import Form
from zoo.stages.score.vllm.engine import engine_arguments
from zoo.stages.score.vllm.kernels import BEFORE_MARLIN, form_environment
from zoo.targets import machine_fingerprint

KEPT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")  # of `int8kept`, in 16 bits
FORMS = {
    "int8": Form("int8"),
    "int8kept": Form("int8"),
    "fp8": Form("fp8"),
    "w4a16": Form("w4a8", 128),
    "w4a8": Form("w4a8", 128),
}
RATE_SIZE, RATE_TIMES = 8192, 20


def environment_of(way: str, on_gpu: bool) -> dict[str, str]:
    """What the engine of a form is started with; `w4a16` is the checkpoint of `w4a8` with 16 bit activations, by Marlin."""
    if way == "w4a16":
        return {"VLLM_DISABLED_KERNELS": ",".join(BEFORE_MARLIN)}
    return form_environment("w4a8" if way == "w4a8" else None, on_gpu=on_gpu)


def make_weights(way: str, folder: Path, tokenizer: Path, shape: str) -> Path:
    """A folder of a form's weights, made unless it is there."""
    config = random_weights.SHAPES[shape]
    path = folder / shape / ("w4a8" if way == "w4a16" else way) / "model"
    if (path / "config.json").exists():
        return path
    group_size = next(size for size in (128, 64, 32) if config["hidden_size"] % size == 0)
    if way == "awq":
        random_weights.write_awq(path, tokenizer / "tokenizer.json", config, group_size)
        return path
    plain = folder / shape / "fp16" / "model"
    random_weights.write_llama(plain, tokenizer / "tokenizer.json", {k: v for k, v in config.items() if isinstance(v, int)})
    if way != "fp16":
        form = FORMS.get(way) or Form("w4a8", group_size)
        random_weights.write_form(plain, path, form, KEPT if way == "int8kept" else ())
    return path


def ours(arguments: dict[str, Any], rows: list[score_turns.Rows]) -> Callable[[int], None]:
    """The engine as `zoo score` starts it; it says by which kernels it multiplies."""
    from zoo.stages.score.vllm.engine import Engine, prepare_environment

    prepare_environment(eager=arguments["enforce_eager"])
    engine = Engine(arguments, (49, 50, 51))
    print(f"{Path(arguments['model']).parent.name}: linear layers by {engine.kernels()}; {engine.memory()}", flush=True)
    chunks = [[np.array(row, dtype=np.int32) for row in chunk] for chunk in rows]

    def score(i: int) -> None:
        logits = engine.score(chunks[i]).logits
        if not np.isfinite(logits).all():
            raise ValueError("logits are not finite")

    return score


def turns(ways: list[str], started: list[tuple[Any, Any]], chunks: int, repeats: int) -> np.ndarray:
    """Seconds (repeats, chunks, ways); the order of the ways changes from chunk to chunk."""
    seconds = np.zeros((repeats, chunks, len(ways)))
    for turn in range(-1, repeats * chunks):  # the first is a warm-up of each
        for k in range(len(ways)):
            at = (turn + k) % len(ways)
            channel, process = started[at]
            os.killpg(process.pid, signal.SIGCONT)
            channel.send(max(0, turn) % chunks)
            taken = channel.recv()
            os.killpg(process.pid, signal.SIGSTOP)
            if turn >= 0:
                seconds[turn // chunks, turn % chunks, at] = taken
    return seconds


def matrix_rates() -> dict[str, float]:
    """Sustained operations a second of square products on this card, in int8 and bfloat16."""
    n, found = RATE_SIZE, {}
    half = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    whole = torch.randint(-127, 127, (n, n), device="cuda", dtype=torch.int8)
    products: dict[str, Callable[[], torch.Tensor]] = {
        "bfloat16": lambda: half @ half,
        "int8": lambda: torch._int_mm(whole, whole.t()),
    }
    for name, product in products.items():
        for _ in range(3):
            product()
        torch.cuda.synchronize()
        begun = time.monotonic()
        for _ in range(RATE_TIMES):
            product()
        torch.cuda.synchronize()
        found[f"{name}_operations_s"] = 2 * n**3 * RATE_TIMES / (time.monotonic() - begun)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(random_weights.SHAPES), default="smollm2-135m")
    parser.add_argument("--models", default="", help="NAME=FOLDER,... of checkpoints in place of random ones")
    parser.add_argument("--ways", default="awq,int8", help="forms, each as zoo starts it or with `:tuned`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json, of SmolLM2")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/forms_speed"))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rows", type=int, default=768)
    parser.add_argument("--mean", type=float, default=540)
    parser.add_argument("--cap", type=int, default=1024)
    parser.add_argument("--chunk-rows", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16384)
    parser.add_argument("--seqs", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only-weights", action="store_true")
    args = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    ways = args.ways.split(",")
    given = dict(pair.split("=") for pair in args.models.split(",") if pair)
    models: dict[str, Path] = {}
    for way in dict.fromkeys(way.split(":")[0] for way in ways):
        begun = time.monotonic()
        models[way] = Path(given[way]) if way in given else make_weights(way, args.folder, args.tokenizer, args.shape)
        print(f"{way}: weights in {time.monotonic() - begun:.0f} s", flush=True)
    if args.only_weights:
        return
    prompt = load_entry("smollm2-135m").prompt
    assert prompt is not None
    args.folder.mkdir(parents=True, exist_ok=True)
    codec = load_codec(args.tokenizer, prompt)
    write_battles(args.folder / "battles.csv", args.rows, args.mean, args.cap, sum(len(part) for part in codec.literals))
    frame = read_battles(args.folder / "battles.csv").frame
    battles = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    rows = [encoded.ids for encoded in encode_battles(battles, codec, prompt, "ab", args.cap)]
    chunks = [rows[i : i + args.chunk_rows] for i in range(0, len(rows), args.chunk_rows)]
    spec = ScoreSpec(
        variants=(Variant(max_tokens=args.cap),), max_batched_tokens=args.batch, max_seqs=args.seqs, prefix_caching=False
    )
    # Before any engine takes the card; a process of its own, whose memory is free afterwards.
    rates = json.loads(os.popen(f"{sys.executable} {__file__} --rates").read().splitlines()[-1]) if on_gpu else {}
    started = []
    try:
        for way in ways:
            form, _, how = way.partition(":")
            folder = models[form]
            if how == "classifier":
                folder = args.folder / args.shape / f"{form}-classifier" / "model"
                if not (folder / "config.json").exists():
                    random_weights.write_classifier(models[form], folder)
            arguments = engine_arguments(folder, spec, ServeSpec(dtype=args.dtype), gpus=1, on_gpu=on_gpu)
            environment = environment_of(form, on_gpu)
            if how == "tuned":
                environment |= score_turns.ALONE if not on_gpu else {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
                # Its share of the GPU stays as small: at its default vLLM refuses to start beside the other engines.
                for key in ("worker_cls", "ir_op_priority"):
                    arguments.pop(key, None)
                arguments |= {"kv_cache_memory_bytes": 4 * 2**30}
            begun = time.monotonic()
            channel, process = score_turns.started(
                environment, score_turns.plain if how == "tuned" else ours, arguments, chunks
            )
            started.append((channel, process))
            channel.recv()
            os.killpg(process.pid, signal.SIGSTOP)
            print(f"{way}: loaded in {time.monotonic() - begun:.0f} s", flush=True)
        seconds = turns(ways, started, len(chunks), args.repeats)
    finally:
        for _, process in started:
            os.killpg(process.pid, signal.SIGKILL)
    tokens = sum(map(len, rows))
    total = seconds.sum(axis=1)
    for at, way in enumerate(ways):
        ratio = np.median(seconds[:, :, 0] / seconds[:, :, at])
        speeds = "; ".join(f"{tokens / one:,.0f}" for one in total[:, at])
        print(f"{way}: {speeds} tokens/s, {ratio:.2f} times {ways[0]} (median of chunks)", flush=True)
    print(json.dumps({"machine": machine_fingerprint(), "tokens": tokens, "seconds": total.tolist(), "ways": ways, **rates}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--rates"]:
        print(json.dumps(matrix_rates()))
    else:
        main()
