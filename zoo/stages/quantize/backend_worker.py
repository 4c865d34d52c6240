"""The program that a backend's own interpreter runs: `JOB.json FD` -> AWQ.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARENT = "ZOO_WORKER_PARENT"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
BATCH = 8  # blocks that auto-round takes a step's gradient from: its own default


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


def llm_compressor(job: dict[str, Any], model: Any, blocks: Any, channel: int) -> None:
    """Quantize a model on blocks of tokens and save it as compressed-tensors."""
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader

    if not torch.cuda.is_available():  # 0.14 pins memory for an accelerator even where there is none, and torch raises
        IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None
    rows = [{"input_ids": block[None], "attention_mask": torch.ones_like(block[None])} for block in blocks]
    # batch_size None: rows are handed over as they are, each a batch already
    oneshot(model=model, dataset=DataLoader(rows, batch_size=None), recipe=recipe(job, channel), pipeline="sequential")
    model.save_pretrained(job["target"], save_compressed=True)


def auto_round(job: dict[str, Any], model: Any, blocks: Any, channel: int) -> None:
    """Quantize a model on blocks of tokens and save it in autoawq's layout.

    Cheng et al. 2023, arXiv 2309.05516: what each weight is rounded up or down by, and each group's range, are learned by the
    sign of gradients of a layer's squared error.
    """
    import torch
    from auto_round import AutoRound
    from auto_round.compressors import orchestrator
    from transformers import AutoTokenizer

    class Told(orchestrator.tqdm):
        """Says when a layer is done."""

        def update(self, n: int = 1) -> Any:
            os.write(channel, b"layer\n" * n)
            return super().update(n)

    orchestrator.tqdm = Told  # its loop over the layers
    on_gpu = torch.cuda.is_available()
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    kept = [name for name in linears if any(part in name for part in job["skip_modules"])]
    rounding = AutoRound(
        model,
        AutoTokenizer.from_pretrained(job["model"]),
        scheme="W4A16",
        bits=job["bits"],
        group_size=job["group_size"],
        sym=not job["zero_point"],
        layer_config={name: {"bits": 16} for name in kept},
        dataset=[block[None] for block in blocks],
        nsamples=len(blocks),
        seqlen=blocks.shape[1],
        batch_size=min(BATCH, len(blocks)),
        iters=job["iterations"],
        enable_minmax_tuning=job["apply_clip"],
        amp=on_gpu,
        device_map=0 if on_gpu else "cpu",
        enable_torch_compile=False,
        seed=job["seed"],
    )
    made = Path(job["target"]).with_name("made")
    rounding.quantize_and_save(str(made), format="auto_awq")  # in a folder below that it names itself
    next(made.glob("*/config.json")).parent.rename(job["target"])


BACKENDS: dict[str, Callable[..., None]] = {"llm-compressor": llm_compressor, "auto-round": auto_round}


def quantize(job: dict[str, Any], channel: int) -> None:
    """Quantize the model of a job by its backend."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    # A CPU multiplies float16 and emulated bfloat16 at a fraction of float32's speed.
    dtype = "auto" if on_gpu else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, **job["options"])
    blocks = torch.from_numpy(np.load(job["blocks"]).astype(np.int64))
    BACKENDS[job["backend"]](job, model, blocks, channel)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    (Path(job["target"]) / "worker.json").write_text(json.dumps({"peak_bytes": peak}))


if __name__ == "__main__":
    die_with_parent()
    quantize(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
