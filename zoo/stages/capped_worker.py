"""vLLM's GPU worker with no more memory than a smaller card has. Imported by vLLM, in each of an engine's worker processes."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker

from zoo.stages.emulation import CAP


class CappedWorker(Worker):
    """Allocations beyond `additional_config[CAP]` bytes, the CUDA context counted, fail as on a card of that size.

    The context and communication buffers are there already when the cap is set, outside of torch's allocator; the card must be
    free of other processes, whose memory would be taken for them.
    """

    def init_device(self) -> Any:
        result = super().init_device()
        cap = int(self.vllm_config.additional_config[CAP])
        free, total = torch.cuda.mem_get_info()
        beside = total - free - torch.cuda.memory_reserved()
        if cap >= total:
            raise ValueError(f"this card has {total} bytes, no more than the {cap} to be emulated")
        torch.cuda.set_per_process_memory_fraction(max(0.0, cap - beside) / total)
        return result
