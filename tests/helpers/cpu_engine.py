"""Label logits of a tiny model on this machine's processors, in several ways: run by test_cpu_worker.py in its own process.

python -m tests.helpers.cpu_engine FOLDER    ->  JSON: logits (rows, 3) of each way, and the kernels that ran
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from zoo.contracts import ScoreSpec, ServeSpec, Variant
from zoo.stages.score.vllm.engine import Engine, engine_arguments, prepare_environment

LABELS = (30, 31, 32)
WIDTHS = (4, 8, 20, 24, 100, 576)


def main(folder: Path) -> None:
    import numpy as np
    from torch.profiler import ProfilerActivity, profile

    generator = np.random.default_rng(0)
    rows = [generator.integers(3, 200, n).astype(np.int32) for n in (60, 41, 33, 7, 1)]
    found: dict[str, Any] = {}
    for way, dtype in (("ours", "bfloat16"), ("again", "bfloat16"), ("vllm", "bfloat16"), ("exact", "float32")):
        spec = ScoreSpec(variants=(Variant(order="ab", max_tokens=64),), dtype=dtype, max_seqs=4, max_batched_tokens=256)
        arguments = engine_arguments(folder, spec, ServeSpec(), gpus=1, on_gpu=False)
        if way in ("vllm", "exact"):
            del arguments["worker_cls"], arguments["ir_op_priority"]
        engine = Engine(arguments, LABELS)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            found[way] = engine.score(rows).logits.tolist()
        found[f"{way}_kernels"] = sorted({event.key for event in seen.key_averages() if event.key.startswith("_C::")})
        del engine
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    found["widths"] = [width for width in WIDTHS if taken(width)]
    found["widths_of_kernel"] = [width for width in WIDTHS if runs(width)]
    print(json.dumps(found))


def taken(width: int) -> bool:
    """Whether the fused norms are chosen for rows of this width."""
    import torch

    from zoo.stages.score.vllm.cpu_worker import takes, takes_sum

    x = torch.ones(2, width)
    return takes(x, x[0], 1e-6) and takes_sum(x, x, x[0], 1e-6)


def runs(width: int) -> bool:
    """Whether vLLM's kernels take such rows."""
    import torch

    from zoo.stages.score.vllm.cpu_worker import fused_add_rms_norm, rms_norm

    x = torch.ones(2, width)
    try:
        rms_norm(x, x[0], 1e-6)
        fused_add_rms_norm(x, x.clone(), x[0].clone(), 1e-6)
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    prepare_environment(eager=True)
    main(Path(sys.argv[1]))
