"""The vLLM engine: token ids in, raw logits of the three labels out.

One position is computed. Of label tokens: the token that vLLM samples there is not used. `logprob_token_ids` with
`logprobs_mode="raw_logits"` returns exactly the label tokens' logits, after the final soft-cap where the model has one (vLLM
0.21 their log-probabilities, which are less by one number in each row: the softmax over the labels is the same). The usual way,
top-k log-probabilities, loses a label that is not among the k; and `allowed_token_ids` does not change what is returned. Of a
classifier: vLLM's pooling runner multiplies the last position's final state with it in float32, with neither the vocabulary nor
a sampler; the final soft-cap, which it leaves out, is applied here.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import ScoreSpec, ServeSpec
from zoo.models.heads import causal_name, head_of, softcap_of, softcapped
from zoo.models.shapes import (
    CPU_BLOCK_TOKENS,
    GPU_BLOCK_TOKENS,
    cached_tokens,
    kv_bytes_per_token,
    read_config,
    shape_of_config,
)
from zoo.stages.score.chunks import Answer

CPU_WORKER = "zoo.stages.score.vllm.cpu_worker.ScoringWorker"
FUSED_NORMS = "zoo_fused"  # of vLLM's norm operations: an implementation that the CPU worker registers
LABEL_IDS = "zoo_label_ids"  # key of `additional_config`
POOLING = "pooling"  # vLLM's runner of classifiers


def prepare_environment(*, eager: bool) -> None:
    """Set what vLLM and torch read from the environment, before they are imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # deterministic, and no second import of everything
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if eager:  # else one helper of the sampler is compiled at the first row, which takes seconds and saves nothing
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    cores = sorted(os.sched_getaffinity(0))
    # By default vLLM keeps one core of a CPU for its frontend, which has nothing to do here: half of a two-core machine.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)) if len(cores) > 1 else "nobind")
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")


def cache_bytes(config: dict[str, Any], spec: ScoreSpec, serve: ServeSpec, *, gpus: int, on_gpu: bool) -> int:
    """Bytes of keys and values on each card: room for the batches in flight and one longest row.

    No more is needed, since one position is read and nothing generated.
    """
    tokens = cached_tokens(
        max_batched_tokens=batch_tokens(spec),
        longest=longest_row(spec),
        max_seqs=spec.max_seqs,
        block_tokens=GPU_BLOCK_TOKENS if on_gpu else CPU_BLOCK_TOKENS,
        batches=gpus if serve.layout == "pipeline" else 1,
    )
    wide = "float32" in (serve.dtype, spec.dtype if serve.dtype == "auto" else serve.dtype)
    return -(-kv_bytes_per_token(shape_of_config(config), 4 if wide else 2) * tokens // gpus)


def longest_row(spec: ScoreSpec) -> int:
    return max(variant.max_tokens or 0 for variant in spec.variants)


def batch_tokens(spec: ScoreSpec) -> int:
    """Tokens of one step of the engine.

    Never less than the longest row and the token that follows it.
    """
    return max(spec.max_batched_tokens, longest_row(spec) + 1)


def engine_arguments(folder: Path, spec: ScoreSpec, serve: ServeSpec, *, gpus: int, on_gpu: bool) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM` for scoring the variants of `spec`.

    `gpus`: how many one copy of the model takes. They depend on nothing of the rows, so that a model loads while its rows are
    tokenized, and what it takes of memory is known beforehand. Where a copy is split, each GPU holds its share of the cache.
    """
    config = read_config(folder)
    classifier = head_of(config) == "classifier"
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": serve.dtype if serve.dtype != "auto" else spec.dtype,
        "max_model_len": longest_row(spec) + 1,
        "max_num_seqs": spec.max_seqs,
        "max_num_batched_tokens": batch_tokens(spec),
        **({"runner": POOLING, "convert": "classify"} if classifier else {"logprobs_mode": "raw_logits"}),
        "hf_overrides": {"head_dtype": "float32"},  # float16 logits near 20 are 0.016 apart
        "kv_cache_memory_bytes": spec.kv_cache_bytes or cache_bytes(config, spec, serve, gpus=gpus, on_gpu=on_gpu),
        # With the cache's size given this only refuses to start beside another process that holds a part of the GPU.
        "gpu_memory_utilization": 0.05,
        "enable_prefix_caching": spec.prefix_caching,
        "enforce_eager": spec.enforce_eager,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "seed": 0,
    }
    arguments["worker_cls"] = "zoo.stages.score.vllm.gpu_worker.ScoringWorker" if on_gpu else CPU_WORKER
    if not on_gpu and spec.enforce_eager:  # compiled, they are fused with what stands around them
        arguments["ir_op_priority"] = {name: [FUSED_NORMS, "native"] for name in ("rms_norm", "fused_add_rms_norm")}
    if not spec.enforce_eager:  # graphs serve batches of up to 512 tokens, and these are longer: seconds and a gigabyte saved
        arguments["compilation_config"] = {"cudagraph_mode": "NONE"}
    if classifier:  # vLLM makes it of the causal class, whatever transformers calls it
        arguments["hf_overrides"] |= {"architectures": [causal_name(config["architectures"][0])]}
    if serve.float16_rescale_bits:
        from zoo.stages.score.vllm.plugin import rescale_overrides

        arguments["hf_overrides"] |= rescale_overrides(config, serve.float16_rescale_bits)
    if gpus > 1:
        key = "pipeline_parallel_size" if serve.layout == "pipeline" else "tensor_parallel_size"
        arguments |= {key: gpus, "disable_custom_all_reduce": True}  # two T4s have no peer access
    return arguments


def import_model_class(arguments: dict[str, Any]) -> None:
    """Import the model's class now.

    vLLM would start a process that imports everything once more, to look at it first. That process takes 12 s of a first start
    on a GPU machine; what it found out is cached in the user's home thereafter.
    """
    from vllm import ModelRegistry
    from vllm.plugins import load_general_plugins

    from zoo.stages.score.vllm.plugin import register

    load_general_plugins()
    register()  # the line above does it only where this package is installed, not where it is run from its folder
    names = arguments["hf_overrides"].get("architectures") or read_config(Path(arguments["model"])).get("architectures") or []
    for name in names:
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


def permit_amx() -> None:
    """Ask Linux for AMX's tile registers, which it gives a process on request only.

    vLLM's attention on CPUs (0.32) uses them without asking: where no product of oneDNN, which asks, came first, a short first
    batch ended the process by SIGILL on a machine with AMX.
    """
    import torch

    torch.cpu._init_amx()  # false, and nothing done, where there is no AMX


def sampling_parameters(labels: Sequence[int]) -> Any:
    """What is asked of a causal model for each row: one token, with the logits of the labels."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=list(labels),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def pooling_parameters() -> Any:
    """What is asked of a classifier for each row: its logits, without the usual softmax."""
    from vllm import PoolingParams

    return PoolingParams(task="classify", use_activation=False)


class Engine:
    """A loaded model that answers with label logits."""

    def __init__(self, arguments: dict[str, Any], label_ids: Sequence[int]) -> None:
        from vllm import LLM

        permit_amx()
        import_model_class(arguments)
        self._labels = list(label_ids)
        if arguments.get("worker_cls") == CPU_WORKER:
            arguments = {**arguments, "additional_config": {LABEL_IDS: self._labels}}
        self._llm = LLM(**arguments)
        self._admit = int(arguments["max_num_seqs"])
        self._pooling = arguments.get("runner") == POOLING
        self._cap = softcap_of(read_config(Path(arguments["model"]))) if self._pooling else None
        self._parameters = pooling_parameters() if self._pooling else sampling_parameters(self._labels)

    def score(self, rows: Sequence[np.ndarray], step: Callable[[int, int], None] = lambda rows, tokens: None) -> Answer:
        """Raw label logits after each row of token ids.

        `step` hears of the rows and tokens that each batch finished. The prefix cache is emptied first, so that the answer
        depends on these rows alone and not on what came before: a resumed run gives the same numbers. Rows are handed over a
        batch ahead of the engine, while it computes.
        """
        started = time.monotonic()
        self._llm.reset_prefix_cache()
        engine = self._llm.llm_engine
        logits, cached = np.full((len(rows), 3), np.nan), np.zeros(len(rows), dtype=np.int64)
        refused: dict[int, str] = {}
        handed = 0
        while handed < len(rows) or engine.has_unfinished_requests():
            ahead = self._admit * (2 if handed == 0 else 1)
            for i in range(handed, min(handed + ahead, len(rows))):
                self._hand_over(i, rows[i], refused)
            handed = min(handed + ahead, len(rows))
            if not engine.has_unfinished_requests():
                continue
            finished = [output for output in engine.step() if output.finished]
            for output in finished:
                i = int(output.request_id)
                logits[i] = self._answer(output)
                cached[i] = output.num_cached_tokens or 0
            if finished:
                step(len(finished), sum(len(output.prompt_token_ids) for output in finished))
        return Answer(logits, cached, refused, time.monotonic() - started)

    def _answer(self, output: Any) -> Sequence[float] | np.ndarray:
        """The three logits of a finished request."""
        if self._pooling:
            return softcapped(output.outputs.data.float().cpu().numpy().astype(np.float64), self._cap)
        found = output.outputs[0].logprobs[0]
        return [found[token].logprob for token in self._labels]

    def _hand_over(self, i: int, row: np.ndarray, refused: dict[int, str]) -> None:
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs.engine import tokens_input

        try:
            self._llm.llm_engine.add_request(str(i), tokens_input(row.tolist()), self._parameters)
        except (ValueError, VLLMValidationError) as error:  # the latter is none of the former in some versions
            refused[i] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]

    def kernels(self) -> dict[str, int]:
        """How many linear layers each kernel multiplies, on all GPUs of this copy."""
        from zoo.stages.score.vllm.kernels import linear_kernels

        each = self._llm.collective_rpc(linear_kernels)
        return {name: sum(one.get(name, 0) for one in each) for name in sorted(set().union(*each))}

    def memory(self) -> dict[str, int]:
        """Largest bytes on any one GPU (`gpu_memory`); zeros on processors."""
        each = self._llm.collective_rpc(gpu_memory)
        return {key: max(one[key] for one in each) for key in each[0]}


def gpu_memory(worker: Any) -> dict[str, int]:
    """Run in each worker of an engine: peaks of its GPU.

    `loading_bytes`, `allocated_bytes`: what torch allocated while the model was loaded, and since. `card_bytes`: what a card
    must have to run this; nvidia-smi shows more, what torch keeps of loading until it is pressed.
    """
    import torch

    if not torch.cuda.is_available():
        return {"loading_bytes": 0, "allocated_bytes": 0, "card_bytes": 0}
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()  # context, communication buffers
    loading = int(worker.loading_bytes)
    return {
        "loading_bytes": loading,
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "card_bytes": beside + max(loading, torch.cuda.max_memory_reserved()),
    }


def engine_version() -> str:
    """`vllm 0.32.0`, or `vllm-cpu 0.32.0`."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "vllm"
