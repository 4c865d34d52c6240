"""vLLM's GPU worker with less to compile and a cap on memory.

Imported by vLLM, in each of an engine's worker processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker
from vllm.v1.worker.worker_base import CompilationTimes

from zoo.stages.score.vllm.emulation import CAP

MOST_BESIDE = 2 * 2**30  # a CUDA context with communication buffers takes 0.5 to 1 GiB


class ScoringWorker(Worker):
    """A worker that compiles only what scoring runs.

    It keeps to the memory of a smaller card where that is emulated. `loading_bytes`: the most that torch allocated while the
    model was loaded.
    """

    loading_bytes = 0

    def init_device(self) -> Any:
        """Cap allocations where `additional_config[CAP]` is set.

        Beyond so many bytes they fail as on a card of that size. The CUDA context and a tensor-parallel group's buffers are
        there already, outside of torch's allocator, and count; a pipeline's come with its first batch and do not. The card must
        be free of other processes, whose memory would be taken for them.
        """
        result = super().init_device()
        cap = self.vllm_config.additional_config.get(CAP)
        if cap is not None:
            free, total = torch.cuda.mem_get_info()
            if cap >= total:
                raise ValueError(f"this card has {total} bytes, no more than the {cap} to be emulated")
            beside = total - free - torch.cuda.memory_reserved()
            if beside > MOST_BESIDE:
                raise ValueError(f"{beside} bytes of this card are in use by another process; end it, then run again")
            torch.cuda.set_per_process_memory_fraction(max(0, cap - beside) / total)
        return result

    def load_model(self, **options: Any) -> None:
        """Load the model, and note the peak memory of loading.

        Converting a matrix to the kernel's layout takes several times its size: a card can be too small for that alone. vLLM
        resets torch's peaks once the model is there, so each is noted before it is forgotten.
        """
        forget: Callable[..., None] = torch.cuda.reset_peak_memory_stats

        def note_and_forget(*args: Any, **more: Any) -> None:
            self.loading_bytes = max(self.loading_bytes, torch.cuda.max_memory_allocated())
            forget(*args, **more)

        torch.cuda.reset_peak_memory_stats = note_and_forget
        try:
            super().load_model(**options)
        finally:
            torch.cuda.reset_peak_memory_stats = forget
        self.loading_bytes = max(self.loading_bytes, torch.cuda.max_memory_allocated())

    def compile_or_warm_up_model(self) -> Any:
        """Without compiled graphs there is nothing to warm up that the first rows would not.

        vLLM compiles kernels of decoding and sampling here too, which scoring never runs: 15 s of a first start.
        """
        if self.model_config.enforce_eager:
            return CompilationTimes(language_model=0.0, encoder=0.0)
        return super().compile_or_warm_up_model()
