"""Answers a second: `zoo data generate`'s stage against plain `vllm.LLM.generate`, the same prompts, settings and tokens.

    PYTHONPATH=$PWD python benchmarks/generate_speed.py --shape 1.5b --prompts 2000 --max-tokens 512
    PYTHONPATH=$PWD python benchmarks/generate_speed.py --model FOLDER --prompts 2000 --turns 2
    PYTHONPATH=$PWD python benchmarks/generate_speed.py --shape tiny --prompts 64 --max-tokens 32

Prompts are of frequent words, log-normal in length. `--shape` draws weights at random: speed, no sense. Each way is a process
of its own; loading does not count. `plain` is vLLM as a user starts it, which is given all prompts at once, and for
conversations all first turns, then all second ones. `stage` is the whole stage, with its files. The last line is their ratio,
and the goal is 0.9. `--no-loops` gives plain the loop detection that the stage has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from score_turns import ALONE

WORDS = ("the", "of", "and", "to", "in", "is", "that", "it", "for", "was", "on", "are", "as", "with", "his", "they", "at", "be")
SHAPES: dict[str, dict[str, Any]] = {  # of the models' own config.json
    "tiny": {},
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
    },
    "1.5b": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
}


def write_model(shape: str, folder: Path) -> Path:
    from tests.helpers.tiny_models import write_chat_template, write_tiny_llama

    return write_chat_template(write_tiny_llama(folder, **SHAPES[shape]))


def write_prompts(path: Path, count: int, turns: int, words: int) -> None:
    generator = np.random.default_rng(0)
    lengths = np.maximum(3, generator.lognormal(np.log(words), 0.8, (count, turns))).astype(int).clip(max=6 * words)
    rows = ({"prompt": [" ".join(generator.choice(WORDS, n)) for n in each]} for each in lengths)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def request_of(given: argparse.Namespace, work: Path) -> Any:
    from zoo.contracts import GenerateRequest, Input, Sampling
    from zoo.data.prompts import read_prompts

    path = work / "prompts.jsonl"
    return GenerateRequest(
        entry="model",
        model=Input(path=work / "fetch", fingerprint="benchmark"),
        prompts=Input(path=path, fingerprint=read_prompts(path).digest),
        sampling=Sampling(temperature=given.temperature, max_tokens=given.max_tokens, context=given.context),
        licence="none",
        source="benchmark",
        prompt_licence="none",
    )


def stage(given: argparse.Namespace, work: Path) -> dict[str, float]:
    """The stage as `zoo data generate` runs it, in an empty store."""
    from zoo.pipeline.runner import run_stage

    artifact = run_stage(request_of(given, work), work / "store")
    metrics, spent = artifact.manifest.metrics, artifact.manifest.measurements
    return {"tokens": metrics["generate/tokens"], "seconds": spent.run_seconds, "load_seconds": spent.load_seconds}


def plain(given: argparse.Namespace, work: Path) -> dict[str, float]:
    """`vllm.LLM` with nothing set but the longest conversation; tokens are what it computed.

    On processors, which are for trying this out, also as the stage has it: one process, eager, as many answers together.
    """
    from zoo.data.prompts import read_prompts
    from zoo.entries.chat_format import chat_pieces
    from zoo.models.chat import context_ids, load_chat
    from zoo.stages.generate.engine import CPU_SEQUENCES, context_of
    from zoo.stages.generate.engine_process import LOOP
    from zoo.stages.generate.work import token_seed
    from zoo.targets import visible_gpus

    settings: dict[str, Any] = {}
    if not visible_gpus():
        os.environ.update({**ALONE, "TORCH_COMPILE_DISABLE": "1"})
        settings = {"enforce_eager": True, "max_num_seqs": CPU_SEQUENCES, "kv_cache_memory_bytes": 2**30}
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RepetitionDetectionParams

    request, model = request_of(given, work), work / "fetch" / "model"
    prompts = read_prompts(request.prompts.path).prompts
    chat = load_chat(model, chat_pieces(model, given.turns) or [])
    sampling, context = request.sampling, context_of(model, request.sampling)
    started = time.monotonic()
    llm = LLM(model=str(model), max_model_len=context, seed=0, **settings)
    llm.generate([{"prompt_token_ids": [3]}], SamplingParams(max_tokens=1), use_tqdm=False)
    loaded = time.monotonic()
    answered: list[list[list[int]]] = [[] for _ in prompts]
    tokens = 0
    for turn in range(given.turns):
        asked = [chat.encode(prompt.turns) for prompt in prompts]
        ids = [context_ids(chat.literals, a, b) for a, b in zip(asked, answered, strict=True)]
        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=token_seed(prompt.turns[: turn + 1], request.seed),
                stop_token_ids=list(chat.stops),
                repetition_detection=RepetitionDetectionParams(**LOOP) if given.no_loops else None,
            )
            for prompt in prompts
        ]
        for one, output in zip(answered, llm.generate([{"prompt_token_ids": i} for i in ids], parameters), strict=True):
            one.append(list(output.outputs[0].token_ids))
            tokens += len(one[-1])
    return {"tokens": tokens, "seconds": time.monotonic() - loaded, "load_seconds": loaded - started}


WAYS = {"stage": stage, "plain": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder with a chat template")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--words", type=int, default=60, help="of a turn, the median")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--no-loops", action="store_true")
    parser.add_argument("--ways", default="plain,stage,plain,stage")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        (given.work / "found.json").write_text(json.dumps(WAYS[given.way](given, given.work)))
        return
    from zoo.stages.score.vllm.engine import engine_version
    from zoo.targets import machine_fingerprint

    print(json.dumps({"machine": machine_fingerprint(), "engine": engine_version(), **vars(given)}, default=str), flush=True)
    speeds: dict[str, list[float]] = {}
    for way in given.ways.split(","):
        with tempfile.TemporaryDirectory() as name:  # each begins with an empty store
            work = Path(name)
            (work / "fetch").mkdir()
            if given.model:
                (work / "fetch" / "model").symlink_to(given.model.resolve())
            else:
                write_model(given.shape, work / "fetch" / "model")
            write_prompts(work / "prompts.jsonl", given.prompts, given.turns, given.words)
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--work", name]
            quiet = {
                **os.environ,
                "OMP_WAIT_POLICY": "PASSIVE",
            }  # the stage has it; on a shared machine spinning costs fifty times that
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=quiet)
            if done.returncode:
                sys.exit(f"{way}: {done.stderr[-9000:]}")
            found = json.loads((work / "found.json").read_text())
        speeds.setdefault(way, []).append(found["tokens"] / found["seconds"])
        print(json.dumps({"way": way, **found, "tokens_per_second": round(speeds[way][-1], 1)}), flush=True)
    best = {way: max(each) for way, each in speeds.items()}
    if len(best) == 2:
        print(json.dumps({"stage_to_plain": round(best["stage"] / best["plain"], 3)}))


if __name__ == "__main__":
    main()
