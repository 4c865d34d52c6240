"""Backends of AWQ in interpreters of their own: llm-compressor and auto-round.

llm-compressor pins another compressed-tensors than vLLM does, auto-round other transformers. The stage prepares the calibration
blocks and judges the result; only `backend_worker.py` runs over there. What comes back is a compressed-tensors checkpoint
("pack-quantized") of llm-compressor's, autoawq's layout of auto-round's; vLLM and our `awq_format` read both.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo.contracts import QuantizeRequest, QuantizeSpec
from zoo.errors import ZooError
from zoo.models.shapes import read_config
from zoo.settings import backend_interpreter
from zoo.stages import progress
from zoo.stages.device import attention_options, device
from zoo.stages.quantize import backend_worker as worker
from zoo.stages.quantize.layerwise import Weights, write_index
from zoo.store import scratch_folder

SCALES = (".weight_scale", ".scales")  # as compressed-tensors and as autoawq name them


def quantize(source: Path, target: Path, blocks: list[list[int]], request: QuantizeRequest) -> int:
    """Write the checkpoint to `target`; the worker's peak bytes of GPU memory, 0 on processors."""
    python = backend_interpreter(request.spec.backend)
    with scratch_folder(target.parent / "scratch") as scratch:
        saved = scratch / "saved"
        np.save(scratch / "blocks.npy", np.array(blocks, dtype=np.int32))
        job: dict[str, Any] = {"model": str(source), "blocks": str(scratch / "blocks.npy"), "target": str(saved)}
        job["options"] = attention_options(source)
        job |= dict(request.spec)  # every setting: a dump leaves out those that were added later and have their default
        (scratch / "job.json").write_text(json.dumps(job))
        run_worker(request.spec.backend, python, scratch, layers=read_config(source)["num_hidden_layers"])
        peak = json.loads((saved / "worker.json").read_text())["peak_bytes"]
        adopt(saved, source, target, request.spec)
    return int(peak)


def run_worker(backend: str, python: Path, scratch: Path, *, layers: int) -> None:
    """Run the job in `scratch` and show its layers; its output goes to the stage's log.

    ZooError with its last line.
    """
    read_end, write_end = os.pipe()
    # -P: the folder of the script is not searched for modules, or our train.py would be imported as `train`.
    command = [str(python), "-P", worker.__file__, str(scratch / "job.json"), str(write_end)]
    environment = {**os.environ, worker.PARENT: str(os.getpid()), "TMPDIR": str(scratch)}
    environment.pop("PYTHONPATH", None)  # packages of this interpreter
    with (scratch / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write_end,)
        )
        os.close(write_end)
        try:
            with progress.bar(layers, "quantize", "layer") as bar, os.fdopen(read_end) as lines:
                for _ in lines:
                    bar.update(int(bar.n < layers))  # llm-compressor's output head comes as one more
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    text = (scratch / "worker.log").read_text(errors="replace")
    print(text)  # this process's output is the stage's log
    if code:
        last = deque((line for line in text.splitlines() if line.strip()), maxlen=1)
        raise ZooError(f"{backend} in {python} ended with exit code {code}: {last[0] if last else 'no message'}")


def adopt(saved: Path, source: Path, target: Path, spec: QuantizeSpec) -> None:
    """Move a saved checkpoint to `target`.

    Scales in float16, what is not quantized as the source has it, the source's config. The rest of config.json is what autoawq
    writes too, so that all are read alike.
    """
    target.mkdir()
    original = Weights(source)
    for path in sorted(saved.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors = {name: stored(name, file.get_tensor(name), original) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, target / path.name, metadata={"format": "pt"})
    write_index(target)
    quantization = json.loads((saved / "config.json").read_text()).get("quantization_config")
    if quantization is None:
        raise ZooError(f"{source}: {spec.backend} quantized nothing; this architecture's layers are not what it expects")
    if quantization["quant_method"] == "awq":
        quantization = gemm_config(spec)
    dtype = "float16" if device().type == "cuda" else "float32"
    config = {**read_config(source), "quantization_config": quantization, "dtype": dtype}
    (target / "config.json").write_text(json.dumps(config, indent=1))


def gemm_config(spec: QuantizeSpec) -> dict[str, Any]:
    """`quantization_config` of a checkpoint in autoawq's layout, in autoawq's words."""
    sizes = {"bits": spec.bits, "group_size": spec.group_size, "zero_point": spec.zero_point}
    return {"quant_method": "awq", "version": "gemm", **sizes, "modules_to_not_convert": list(spec.skip_modules) or None}


def stored(name: str, tensor: torch.Tensor, original: Weights) -> Any:
    """A tensor in the dtype it is kept in. ZooError where a scale is too large for float16."""
    if name in original:
        return tensor.to(original.read(name).dtype)
    if name.endswith(SCALES):
        narrow = tensor.to(torch.float16)
        if not torch.isfinite(narrow).all():
            raise ZooError(f"{name}: scales are not finite in float16; use other calibration rows")
        return narrow
    return tensor
