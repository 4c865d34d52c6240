"""Logits of tiny classifiers by vLLM on this machine's processors: run by test_pooling.py in a process of its own.

python -m tests.helpers.classifier_engine '[[FOLDER, dtype, bits or null], ...]' < rows.json  ->  JSON: logits (rows, 3) of each
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from zoo.contracts import ScoreSpec, ServeSpec, Variant
from zoo.stages.score.vllm.engine import Engine, engine_arguments, prepare_environment


def logits(folder: Path, rows: list[list[int]], dtype: str, bits: int | None) -> list[list[float]]:
    import numpy as np
    from vllm.distributed import cleanup_dist_env_and_memory

    spec = ScoreSpec(variants=(Variant(max_tokens=128),), dtype=dtype, max_seqs=4, max_batched_tokens=256)
    engine = Engine(engine_arguments(folder, spec, ServeSpec(float16_rescale_bits=bits), gpus=1, on_gpu=False), (0, 1, 2))
    found: list[list[float]] = engine.score([np.array(row, dtype=np.int32) for row in rows]).logits.tolist()
    del engine
    cleanup_dist_env_and_memory()
    return found


if __name__ == "__main__":
    prepare_environment(eager=True)
    given = json.load(sys.stdin)
    print(json.dumps([logits(Path(folder), given, dtype, bits) for folder, dtype, bits in json.loads(sys.argv[1])]))
