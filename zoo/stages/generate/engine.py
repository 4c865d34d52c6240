"""How an engine that answers is started, and what it is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.contracts import Sampling
from zoo.errors import ZooError
from zoo.models.chat import Chat
from zoo.models.config_defaults import completed
from zoo.models.shapes import kv_bytes_per_token, read_config, shape_of_config
from zoo.stages.score.second_start import told_attention
from zoo.stages.score.vllm.engine import CPU_WORKER, FUSED_NORMS
from zoo.store import write_atomic

COMMAND = (sys.executable, "-m", "zoo.stages.generate.engine_process")
GPU_SHARE = 0.9  # of a card's memory, for weights, graphs and cache: vLLM's own default
BESIDE_CACHE_BYTES = 3 << 30  # of a share, beside weights and cache: graphs, activations, context (2.0 GiB for Qwen 2.5 1.5B)
CPU_SEQUENCES = 32
CPU_CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class GenerateJob:
    """What every replica is started with; `places`: the environment of each."""

    data: Mapping[str, Any]
    folder: Path
    places: tuple[Mapping[str, str], ...]
    model_bytes: int

    def write(self) -> Path:
        """The file that replicas read as they start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "job.json"
        write_atomic(path, json.dumps(dict(self.data)))
        return path


def generate_job(
    model: Path, chat: Chat, sampling: Sampling, folder: Path, places: tuple[Mapping[str, str], ...], *, on_gpu: bool
) -> GenerateJob:
    context = context_of(model, sampling)
    data = {
        "arguments": engine_arguments(model, context, on_gpu=on_gpu),
        "literals": chat.literals,
        "stops": chat.stops,
        "sampling": {**sampling.model_dump(), "context": context},
    }
    return GenerateJob(data, folder, places, sum(file.stat().st_size for file in model.glob("*.safetensors")))


def context_of(model: Path, sampling: Sampling) -> int:
    """Tokens that a conversation and its answer may have.

    That is what is asked for, and no more than the model was made for. ZooError where answers alone may fill it.
    """
    config = read_config(model)
    own = completed(config).get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    context = min(sampling.context, own) if isinstance(own, int) else sampling.context
    if sampling.max_tokens >= context:
        raise ZooError(
            f"max_tokens {sampling.max_tokens} leaves nothing of this model's {context} tokens for a prompt; "
            "give a smaller --max-tokens"
        )
    return context


def engine_arguments(model: Path, context: int, *, on_gpu: bool) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM` for generating.

    On a GPU the engine finds out by itself how many answers fit its memory, and decoding runs in captured graphs. On
    processors the cache is as large as the answers that are computed together need, within 2 GiB.
    """
    arguments: dict[str, Any] = {
        "model": str(model),
        "dtype": "auto",
        "max_model_len": context,
        "hf_overrides": {},
        "generation_config": "vllm",  # else the model's own defaults would stand where a setting is not given
        "enable_prefix_caching": True,
        "enforce_eager": not on_gpu,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "seed": 0,
    }
    if on_gpu:
        worker = "zoo.stages.score.vllm.gpu_worker.ScoringWorker"
        return {**arguments, **told_attention(on_gpu), "gpu_memory_utilization": GPU_SHARE, "worker_cls": worker}
    token = kv_bytes_per_token(shape_of_config(read_config(model)))
    return {
        **arguments,
        "max_num_seqs": CPU_SEQUENCES,
        "kv_cache_memory_bytes": max(token * (context + 256), min(CPU_CACHE_BYTES, token * context * CPU_SEQUENCES)),
        "gpu_memory_utilization": 0.05,  # with the cache's size given it only refuses to start beside others
        "worker_cls": CPU_WORKER,
        "ir_op_priority": {name: [FUSED_NORMS, "native"] for name in ("rms_norm", "fused_add_rms_norm")},
    }


def within_share(arguments: Mapping[str, Any], share: int) -> dict[str, Any]:
    """The arguments of an engine that keeps to `share` bytes of a card.

    Others are at work on it. The cache gets what the weights leave of the share. vLLM's own count would take what others
    use meanwhile for its engine's: beside two trainings a share of 12 GB left no block. ZooError where the share is too
    small for a cache.
    """
    weights = sum(file.stat().st_size for file in Path(arguments["model"]).glob("*.safetensors"))
    cache = share - weights - BESIDE_CACHE_BYTES
    if cache <= 0:
        need = (weights + BESIDE_CACHE_BYTES) / 2**30
        raise ZooError(f"{share / 2**30:.1f} GiB of the card are lent, the model takes {need:.1f} without a cache; lend more")
    return {**arguments, "gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": cache}
