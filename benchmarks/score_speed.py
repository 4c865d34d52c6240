"""Scoring against what else one could do on this machine: tokens a second, start-up, and memory under another card's limits.

    python benchmarks/score_speed.py --shape llama-3-8b --tokenizer FOLDER --steps rate,zoo,vllm,default,transformers,engine
    python benchmarks/score_speed.py --shape yi-34b --tokenizer FOLDER --steps zoo --as t4x2 --layout pipeline
    python benchmarks/score_speed.py --model FOLDER --tokenizer FOLDER --target cpu --steps zoo,vllm

Rows are generated battles of log-normal length. `--shape` draws AWQ weights at random: speed and memory, no log loss. Each step
is a process of its own, so that its start-up and its memory are its own. `vllm` is a script tuned by hand for the same
rows; `default` is `vllm.LLM(model)` with nothing set; `transformers` runs padded batches of 8 (benchmarks/score_rivals.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import random_weights
import score_rivals
import score_turns

from zoo.contracts import Held, Input, QuantizeSpec, ScoreRequest, ScoreSpec, Selection, ServeSpec, Variant
from zoo.entries.load import load_entry
from zoo.models.prompts import encode_battles, load_codec
from zoo.stages.quantize.forms import form_of
from zoo.targets import load_target, machine_fingerprint

# fmt: off
WORDS = ("the", "of", "and", "to", "in", "is", "that", "it", "for", "was", "on", "are", "as", "with", "his", "they", "at", "be")
# fmt: on
PROMPT_SHARE = 0.12  # of a row's text: LMSYS prompts have 54 words, responses 205 each, on average


def write_battles(path: Path, rows: int, mean: float, cap: int, template_tokens: int) -> None:
    """Battles of frequent words, one token each: log-normal lengths (deviation 0.6 of the logarithm) of that mean when cut."""
    import pandas as pd

    generator = np.random.default_rng(0)
    sizes = np.exp(generator.normal(0, 0.6, rows))
    scale = mean
    for _ in range(50):  # the cap takes from the mean, so the scale grows until the mean is met
        scale *= mean / np.minimum(sizes * scale, cap).mean()
    texts = np.maximum(np.round(np.minimum(sizes * scale, cap) - template_tokens), 9).astype(int)
    columns: dict[str, list[str]] = {"prompt": [], "response_a": [], "response_b": []}
    for n in texts:
        words = generator.choice(WORDS, n).tolist()
        first, second = max(1, round(PROMPT_SHARE * n)), round((1 + PROMPT_SHARE) / 2 * n)
        for name, part in zip(columns, (words[:first], words[first:second], words[second:]), strict=True):
            columns[name].append(json.dumps([" ".join(part)]))
    wins = generator.integers(0, 3, rows)
    frame = pd.DataFrame({"id": range(rows), "model_a": "a", "model_b": "b", **columns})
    for i, name in enumerate(("winner_model_a", "winner_model_b", "winner_tie")):
        frame[name] = (wins == i).astype(int)
    frame.to_csv(path, index=False)


def request_of(args: argparse.Namespace) -> ScoreRequest:
    """What `zoo score` would ask, with the model folder given."""
    prompt = load_entry("smollm2-135m").prompt
    assert prompt
    variants = tuple(Variant(order=order, max_tokens=args.cap) for order in args.orders.split(","))
    spec = ScoreSpec(
        variants=variants,
        chunk_rows=args.chunk_rows,
        max_batched_tokens=args.batch,
        max_seqs=args.seqs,
        enforce_eager=not args.compile,
    )
    serve = ServeSpec(layout=args.layout, dtype=args.dtype, float16_rescale_bits=args.rescale or None)
    return ScoreRequest(
        entry="speed",
        model=Input(path=args.model.parent, fingerprint="random"),
        battles=Input(path=args.folder / "battles.csv", fingerprint="generated"),
        held=Held(),
        selection=Selection(rows="all", max_rows=args.rows),
        prompt=prompt.model_copy(update={"max_tokens": args.cap}),
        spec=spec,
        serve=serve,
        target=args.target,
        emulates=args.as_,
    )


def rows_of(args: argparse.Namespace) -> list[list[int]]:
    """Token ids of the first variant's rows, the longest first."""
    from zoo.data.battles import read_battles

    request = request_of(args)
    codec = load_codec(args.model, request.prompt)
    frame = read_battles(request.battles.path).frame.iloc[: args.rows]
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    rows = [e.ids for e in encode_battles(turns, codec, request.prompt, request.spec.variants[0].order, args.cap)]
    return sorted(rows, key=len, reverse=True)


# --- steps, each run in a process of its own ------------------------------------------------------------------------


def step_zoo(args: argparse.Namespace) -> dict[str, float]:
    """`zoo score` as it is run: the stage's process, its engines, its files.

    In a store of its own: the request's fingerprints say nothing of these weights and rows, so that another run's artifact, or
    its unfinished chunks, would be taken for this one's.
    """
    from zoo.pipeline.runner import run_stage
    from zoo.pipeline.runners.session import running_on

    request = request_of(args)
    store = Path(tempfile.mkdtemp(prefix="store-", dir=args.folder))
    started = time.monotonic()
    with running_on(args.runner, store, print):
        artifact = run_stage(request, store, say=print)
    wall = time.monotonic() - started
    m, metrics = artifact.manifest.measurements, artifact.manifest.metrics
    print(f"artifact {artifact.path}")
    refused = sum(value for name, value in metrics.items() if name.endswith(":rows/failed"))
    engine = {name.removeprefix("engine/"): value for name, value in metrics.items() if name.startswith("engine/")}
    engine |= predicted_memory(args) if args.shape else {}
    return {"tokens": m.tokens, "rows": m.rows, "tokens_s": m.tokens / m.run_seconds, "first_token_s": m.load_seconds,
            "wall_s": wall, "refused": refused, **engine}  # fmt: skip


def predicted_memory(args: argparse.Namespace) -> dict[str, float]:
    """Bytes of the fullest card by `zoo check`'s arithmetic."""
    from zoo.models.memory import scoring_memory
    from zoo.models.shapes import embedding_parameters, linear_parameters, shape_of_config, weight_bits

    shape = shape_of_config(random_weights.SHAPES[args.shape])
    predicted = scoring_memory(
        shape,
        parameters=linear_parameters(shape) + embedding_parameters(shape),
        bits=weight_bits(QuantizeSpec(scheme=args.form, finer_share=0)),
        layout=args.layout,
        gpus=load_target(args.as_ or args.target).gpus,
        max_batched_tokens=args.batch,
        max_seqs=args.seqs,
        longest=args.cap,
    )
    return {
        "predicted_allocated_bytes": predicted.serving,  # `allocated_bytes` is counted from when the engine has loaded
        "predicted_loading_bytes": predicted.loading,
        "predicted_card_bytes": predicted.total,
    }


def step_vllm(args: argparse.Namespace) -> dict[str, float]:
    """A script tuned by hand."""
    return score_rivals.tuned_vllm(rows_of(args), args.model, dtype=args.dtype, cap=args.cap, batch=args.batch)


def step_default(args: argparse.Namespace) -> dict[str, float]:
    """`vllm.LLM(model)`: start-up only."""
    return score_rivals.plain_vllm(rows_of(args)[:1], {"model": str(args.model), "dtype": args.dtype})


def step_transformers(args: argparse.Namespace, **how: bool) -> dict[str, float]:
    """Padded batches of rows of like length."""
    config = random_weights.SHAPES[args.shape] if args.shape else None
    return score_rivals.transformers(rows_of(args), args.model, config, **how)


def step_transformers_unsorted(args: argparse.Namespace) -> dict[str, float]:
    return step_transformers(args, shuffle=True)


def step_transformers_nf4(args: argparse.Namespace) -> dict[str, float]:
    return step_transformers(args, nf4=True)


def step_rate(args: argparse.Namespace) -> dict[str, float]:
    """What the card's matrix products run at, and what a token takes."""
    config = random_weights.SHAPES[args.shape]
    return score_rivals.matrix_rate(rows_of(args), config, random_weights.layer_shapes(config))


def step_weights(args: argparse.Namespace) -> dict[str, float]:
    tokenizer, config = args.tokenizer / "tokenizer.json", random_weights.SHAPES[args.shape]
    if args.form == "awq":
        random_weights.write_awq(args.model, tokenizer, config)
    else:
        random_weights.write_llama(args.model, tokenizer, config, form_of(QuantizeSpec(scheme=args.form, finer_share=0)))
    return {}


def step_interleaved(args: argparse.Namespace) -> dict[str, float]:
    """Chunk by chunk by turns with plain `vllm.LLM`: the ratios hold on a machine that others use too."""
    from zoo.stages.score.vllm.engine import engine_arguments

    request, rows = request_of(args), rows_of(args)
    chunks = [rows[i : i + args.chunk_rows] for i in range(0, len(rows), args.chunk_rows)]
    arguments = engine_arguments(args.model, request.spec, request.serve, gpus=1, on_gpu=args.target != "cpu")
    return score_turns.by_turns(chunks, args.model, arguments, args.ways.split(","))


def step_engine(args: argparse.Namespace) -> dict[str, float]:
    """What chunks cost, and what adjacent orders save, in one engine: tokens a second of each way, every one done twice."""
    from zoo.stages.score.vllm.engine import Engine, engine_arguments, prepare_environment

    request = request_of(args)
    prepare_environment(eager=request.spec.enforce_eager)
    engine = Engine(
        engine_arguments(args.model, request.spec, request.serve, gpus=1, on_gpu=args.target != "cpu"), (49, 50, 51)
    )
    rows = [np.array(row, dtype=np.int32) for row in rows_of(args)[:: max(1, args.rows // 1024)]]
    cut = round(PROMPT_SHARE * np.mean([len(row) for row in rows]))
    pairs = [other for row in rows[:512] for other in (row, np.concatenate([row[:cut], row[cut:][::-1]]))]
    found: dict[str, float] = {}
    for name, chunks in {
        "whole": [rows],
        "chunks_256": [rows[i : i + 256] for i in range(0, len(rows), 256)],
        "chunks_64": [rows[i : i + 64] for i in range(0, len(rows), 64)],
        "orders_apart": [
            chunk for i in range(0, len(pairs), 256) for chunk in (pairs[i : i + 256 : 2], pairs[i + 1 : i + 256 : 2])
        ],
        "orders_adjacent": [pairs[i : i + 256] for i in range(0, len(pairs), 256)],
    }.items():
        for again in ("", "_again"):
            answers = [engine.score(chunk) for chunk in chunks]
            tokens = sum(len(row) for chunk in chunks for row in chunk)
            found[name + again] = tokens / sum(answer.seconds for answer in answers)
        found[f"{name}_cached"] = sum(int(answer.cached.sum()) for answer in answers) / tokens
    return found


# --- the parent -----------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """Largest memory in use that nvidia-smi shows of each card while a step runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        command = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.5):
            try:
                answer = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
            except (OSError, subprocess.SubprocessError):
                return
            for line in answer.splitlines():
                index, used = (int(cell) for cell in line.split(","))
                self.peaks[index] = max(self.peaks.get(index, 0), used / 1024)

    def end(self) -> dict[str, float]:
        self._ended.set()
        self.join()
        return {f"smi_gib_{index}": peak for index, peak in sorted(self.peaks.items()) if peak > 1}


def run_step(step: str, argv: list[str]) -> dict[str, float]:
    """A step in a process of its own; its last line of JSON is its result."""
    watch = Watch()
    watch.start()
    with subprocess.Popen([sys.executable, __file__, *argv, "--one", step], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [line for line in process.stdout if not print(line, end="")]  # type: ignore[func-returns-value]
    memory = watch.end()
    results = [line for line in lines if line.startswith("{")]  # engines that end may say more after it
    return {**json.loads(results[-1]), **memory} if process.returncode == 0 else {"failed": float(process.returncode), **memory}


def prepare(args: argparse.Namespace) -> None:
    """Weights and battles, unless they are there."""
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.shape and not (args.model / "config.json").exists():
        run_step("weights", sys.argv[1:])  # in a process of its own, whose GPU memory is free afterwards
    prompt = load_entry("smollm2-135m").prompt
    assert prompt
    template = sum(len(literal) for literal in load_codec(args.model, prompt).literals)
    write_battles(args.folder / "battles.csv", args.rows, args.mean, args.cap, template)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["llama-3-8b", "gemma-2-9b", "yi-34b"], help="draw this shape's weights at random")
    parser.add_argument("--form", choices=["awq", "int8", "w4a8"], default="awq", help="of the drawn weights")
    parser.add_argument("--model", type=Path, help="model folder (it must be named `model`), in place of --shape")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json, of SmolLM2")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/score_speed"), help="for weights, battles and results")
    parser.add_argument(
        "--steps",
        default="zoo,vllm",
        help="names of the functions step_*",
    )
    parser.add_argument("--target", default="h200")
    parser.add_argument("--runner", choices=["local", "ray"], default="local", help="of the step zoo; ray takes all cards")
    parser.add_argument("--as", dest="as_", help="keep to this target's memory and kernels")
    parser.add_argument("--layout", default="replicas")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--rescale", type=int, default=0, help="float16_rescale_bits, for Gemma in float16")
    parser.add_argument("--compile", action="store_true", help="score.enforce_eager=false")
    parser.add_argument("--orders", default="ab")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--mean", type=float, default=540)
    parser.add_argument("--cap", type=int, default=1024)
    parser.add_argument("--chunk-rows", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16384)
    parser.add_argument("--seqs", type=int, default=64)
    parser.add_argument("--ways", default=",".join(score_turns.PLAIN), help="plain engines that `interleaved` takes turns with")
    parser.add_argument("-o", "--output", type=Path, help="append results to this file, a line of JSON a step")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.model = args.model or args.folder / f"{args.shape}-{args.form}" / "model"
    if args.one:
        result = globals()[f"step_{args.one}"](args)
        print(json.dumps(result), flush=True)
        os._exit(0)
    prepare(args)
    load_target(args.target)
    for step in args.steps.split(","):
        line = json.dumps(
            {"step": step, "machine": machine_fingerprint(), "argv": sys.argv[1:], **run_step(step, sys.argv[1:])}
        )
        print(line, flush=True)
        if args.output:
            with args.output.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
