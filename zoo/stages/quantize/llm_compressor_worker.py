"""The program that llm-compressor's interpreter runs: `JOB.json FD` -> AWQ.

It imports nothing of this project: in that environment there is no pydantic of ours, and no vLLM here would bear its
compressed-tensors. The job names the model folder, options to load it with, the calibration blocks (int32 .npy, blocks x
tokens), the target folder and the settings; each finished layer is a line written to file descriptor FD.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

PARENT = "ZOO_WORKER_PARENT"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """End with the stage that started this, whatever ended it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[PARENT]):
            os._exit(1)


def recipe(job: dict[str, Any], channel: int) -> list[Any]:
    """Smoothing and then rounding.

    `AWQModifier` alone leaves the weights unquantized (llm-compressor PR #2460).
    """
    from llmcompressor.modifiers import Modifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    class Told(Modifier):
        """Says when a layer is done."""

        def on_initialize(self, state: Any, **_: Any) -> bool:
            return True

        def on_sequential_epoch_end(self, state: Any, event: Any, **_: Any) -> None:
            os.write(channel, b"layer\n")

    weights = {
        "num_bits": job["bits"],
        "type": "int",
        "strategy": "group",
        "group_size": job["group_size"],
        "symmetric": not job["zero_point"],
        "observer": "memoryless_mse" if job["apply_clip"] else "memoryless_minmax",
    }
    ignore = ["lm_head", *(f"re:.*{re.escape(name)}.*" for name in job["skip_modules"])]
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=ignore), Told()]


def quantize(job: dict[str, Any], channel: int) -> None:
    """Quantize the model of a job and save it as compressed-tensors."""
    import numpy as np
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    if not on_gpu:  # 0.14 pins memory for an accelerator even where there is none, and torch raises
        IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None
    # A CPU multiplies float16 and emulated bfloat16 at a fraction of float32's speed.
    dtype = "auto" if on_gpu else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, **job["options"])
    blocks = torch.from_numpy(np.load(job["blocks"]).astype(np.int64))
    rows = [{"input_ids": block[None], "attention_mask": torch.ones_like(block[None])} for block in blocks]
    # batch_size None: rows are handed over as they are, each a batch already
    oneshot(model=model, dataset=DataLoader(rows, batch_size=None), recipe=recipe(job, channel), pipeline="sequential")
    model.save_pretrained(job["target"], save_compressed=True)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    (Path(job["target"]) / "worker.json").write_text(json.dumps({"peak_bytes": peak}))


if __name__ == "__main__":
    die_with_parent()
    quantize(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
