"""vLLM's GPU worker as scoring needs it. Imported by vLLM, in each of an engine's worker processes."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker
from vllm.v1.worker.worker_base import CompilationTimes

from zoo.stages.emulation import CAP

MOST_BESIDE = 2 * 2**30  # a CUDA context with communication buffers takes 0.5 to 1 GiB


class ScoringWorker(Worker):
    """Compiles only what scoring runs, and keeps to the memory of a smaller card where that is emulated."""

    def init_device(self) -> Any:
        """Where `additional_config[CAP]` is set, allocations beyond so many bytes fail as on a card of that size.

        The CUDA context and communication buffers are there already, outside of torch's allocator, and count; the card must be
        free of other processes, whose memory would be taken for them.
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

    def compile_or_warm_up_model(self) -> Any:
        """Without compiled graphs there is nothing to warm up that the first rows would not.

        vLLM compiles kernels of decoding and sampling here too, which scoring never runs: 15 s of a first start.
        """
        if self.model_config.enforce_eager:
            return CompilationTimes(language_model=0.0, encoder=0.0)
        return super().compile_or_warm_up_model()
