"""Chunk by chunk, by turns: this engine, and `vllm.LLM` as a user starts it, each in a process of its own.

Whatever else the machine does falls on all of them alike, so ratios hold where seconds do not. The others have none of this
project's settings: not its environment, its worker, nor its allocator. No row is answered from a cache: every engine empties
its prefix cache before a chunk.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[list[int]]
CORES = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
ALONE = {
    **CORES,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
}
PLAIN = {
    "plain": {},  # as it comes: compiled, and on CPUs with a core left to its frontend
    "plain_cores": CORES,  # compiled, on all cores, which its frontend and its worker's waiting share
    "plain_alone": ALONE,  # compiled, on all cores, in a single process
    "plain_eager": ALONE,  # the same with `enforce_eager=True`
}


def ours(arguments: dict[str, Any], rows: list[Rows]) -> Callable[[int], None]:
    """The engine as `zoo score` starts it."""
    from zoo.stages.score.vllm.engine import Engine, prepare_environment

    prepare_environment(eager=arguments["enforce_eager"])
    engine = Engine(arguments, (49, 50, 51))
    chunks = [[np.array(row, dtype=np.int32) for row in chunk] for chunk in rows]

    def score(i: int) -> None:
        engine.score(chunks[i])

    return score


def plain(settings: dict[str, Any], rows: list[Rows]) -> Callable[[int], None]:
    """`vllm.LLM` with the same model, dtype and longest row."""
    from vllm import LLM, SamplingParams

    llm = LLM(**settings)
    parameters = SamplingParams(max_tokens=1, temperature=0, logprobs=5)
    chunks = [[{"prompt_token_ids": row} for row in chunk] for chunk in rows]

    def score(i: int) -> None:
        llm.reset_prefix_cache()
        llm.generate(chunks[i], parameters, use_tqdm=False)

    return score


def serve(channel: Connection, environment: dict[str, str], start: Any, arguments: dict[str, Any], rows: list[Rows]) -> None:
    """Load, say so, then score the chunks that are asked for, and answer with the seconds each took."""
    os.setsid()  # a group of its own, to be stopped and ended with all processes that vLLM starts in it
    os.environ.update(environment)
    score = start(arguments, rows)
    channel.send("ready")
    while True:
        i = channel.recv()
        started = time.monotonic()
        score(i)
        channel.send(time.monotonic() - started)


def by_turns(rows: list[Rows], model: Path, arguments: dict[str, Any], ways: list[str]) -> dict[str, float]:
    """Seconds of each way, and the ratio of this engine's tokens a second to every other's, with its standard error.

    `arguments`: of this engine. Each way scores every chunk once, in an order that changes from chunk to chunk; the first
    chunk is scored before, and not counted.
    """
    settings = {"model": str(model), "dtype": arguments["dtype"], "max_model_len": arguments["max_model_len"]}
    # With the cache's size given a small share of a GPU only lets it start beside this engine.
    settings |= {"kv_cache_memory_bytes": 2**30, "gpu_memory_utilization": arguments["gpu_memory_utilization"]}
    names = ["ours", *ways]
    seconds = np.zeros((len(rows), len(names)))
    engines: list[tuple[Connection, Any]] = []
    try:
        for way in names:
            given = (ours, arguments) if way == "ours" else (plain, settings | {"enforce_eager": way == "plain_eager"})
            engines.append(started(PLAIN.get(way, {}), *given, rows))
            engines[-1][0].recv()  # one after the other: they would load at each other's cost; EOFError where it has ended
            os.killpg(engines[-1][1].pid, signal.SIGSTOP)
        for turn in range(-1, len(rows)):
            for k in range(len(names)):
                at = (turn + k) % len(names)
                channel, process = engines[at]
                # Stopped in between: vLLM's processes spin for seconds after a chunk, at the cost of the next engine's.
                os.killpg(process.pid, signal.SIGCONT)
                channel.send(max(0, turn))
                seconds[max(0, turn), at] = channel.recv()  # the first turn's are overwritten by the second's
                os.killpg(process.pid, signal.SIGSTOP)
    finally:
        for _, process in engines:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    found = {f"{name}_s": float(seconds[:, at].sum()) for at, name in enumerate(names)}
    for at, name in enumerate(names[1:], 1):
        found |= {f"{name}_ratio": found[f"{name}_s"] / found["ours_s"], f"{name}_ratio_se": ratio_error(seconds[:, [0, at]])}
        found[f"{name}_ratio_median"] = float(np.median(seconds[:, at] / seconds[:, 0]))  # of chunks: what others disturb least
    return found


def started(environment: dict[str, str], start: Any, arguments: dict[str, Any], rows: list[Rows]) -> tuple[Connection, Any]:
    """The channel and process of an engine that begins to load."""
    context = multiprocessing.get_context("spawn")
    channel, other = context.Pipe()
    process = context.Process(target=serve, args=(other, environment, start, arguments, rows))
    process.start()
    other.close()  # or the end of the process would not be seen
    return channel, process


def ratio_error(seconds: np.ndarray) -> float:
    """Standard error of the ratio of the second column's sum to the first's, over chunks, by the delta method."""
    count, sums = len(seconds), seconds.sum(axis=0)
    residuals = seconds[:, 1] - sums[1] / sums[0] * seconds[:, 0]
    return float(residuals.std(ddof=1) * count**0.5 / sums[0]) if count > 1 else float("nan")
