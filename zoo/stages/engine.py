"""vLLM as this project uses it: token ids in, raw logits of three label tokens out, one position, nothing sampled of use.

`logprob_token_ids` with `logprobs_mode="raw_logits"` returns exactly the label tokens' logits. The usual way, top-k
log-probabilities, loses a label that is not among the k; and `allowed_token_ids` does not change what is returned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import ScoreSpec, ServeSpec

KV_BLOCK_TOKENS = 128  # at most: vLLM's blocks are 16 tokens on a GPU, up to 128 on a CPU


def prepare_environment() -> None:
    """Settings that vLLM reads from the environment, to be made before it is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process: deterministic, and nothing outlives it
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    cores = sorted(os.sched_getaffinity(0))
    # By default vLLM keeps one core of a CPU for its frontend, which has nothing to do here: half of a two-core machine.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}-{cores[-1]}" if len(cores) > 1 else "nobind")
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")


def kv_cache_bytes(config: dict[str, Any], tokens: int, dtype_bytes: int = 2) -> int:
    """Bytes of keys and values of `tokens` tokens: 2 x layers x key-value heads x head size x bytes each."""
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(2 * config["num_hidden_layers"] * heads * head * dtype_bytes * tokens)


def engine_arguments(folder: Path, spec: ScoreSpec, serve: ServeSpec, max_tokens: int, gpus: int) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM` for scoring rows of at most `max_tokens` tokens.

    No key-value cache is needed beyond the batch in flight, since one position is read and nothing generated, so the cache
    is sized for one full batch and one longest row in blocks; the rest of the memory stays free.
    """
    config = json.loads((folder / "config.json").read_text())
    batch = max(spec.max_batched_tokens, max_tokens + 1)
    cached = batch + max_tokens + 1 + spec.max_seqs * KV_BLOCK_TOKENS
    dtype = serve.dtype if serve.dtype != "auto" else spec.dtype
    dtype_bytes = 4 if dtype == "float32" else 2
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "max_model_len": max_tokens + 1,
        "max_num_seqs": spec.max_seqs,
        "max_num_batched_tokens": batch,
        "logprobs_mode": "raw_logits",
        "hf_overrides": {"head_dtype": "float32"},  # float16 logits near 20 are 0.016 apart
        "kv_cache_memory_bytes": spec.kv_cache_bytes or kv_cache_bytes(config, cached, dtype_bytes),
        # With the cache's size given this only refuses to start beside another process that holds a part of the GPU.
        "gpu_memory_utilization": 0.05,
        "enable_prefix_caching": spec.prefix_caching,
        "enforce_eager": spec.enforce_eager,
        "skip_tokenizer_init": True,
        "seed": 0,
    }
    if serve.layout != "replicas":
        key = "pipeline_parallel_size" if serve.layout == "pipeline" else "tensor_parallel_size"
        arguments |= {key: gpus, "disable_custom_all_reduce": True}  # two T4s have no peer access
    return arguments


class Engine:
    """A loaded model that answers with label logits."""

    def __init__(self, arguments: dict[str, Any], label_ids: tuple[int, int, int]) -> None:
        from vllm import LLM, SamplingParams

        self._llm = LLM(**arguments)
        self._labels = label_ids
        self._parameters = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=list(label_ids), detokenize=False)

    def logits(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Raw label logits (n, 3) after each row of token ids.

        The prefix cache is emptied first, so that the answer depends on these rows alone and not on what came before: a
        resumed run gives the same numbers.
        """
        self._llm.reset_prefix_cache()
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        outputs = self._llm.generate(prompts, self._parameters, use_tqdm=False)
        values = [[output.outputs[0].logprobs[0][token].logprob for token in self._labels] for output in outputs]
        return np.array(values, dtype=np.float64).reshape(len(rows), 3)


def engine_version() -> str:
    """`vllm 0.32.0`, or `vllm-cpu 0.32.0`."""
    import importlib.metadata

    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "vllm"
