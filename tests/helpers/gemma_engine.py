"""Label logits of a tiny Gemma by vLLM in several settings: run by test_gemma_float16.py in its own process.

    python -m tests.helpers.gemma_engine FOLDER '[[dtype, bits or null], ...]'  ->  JSON, logits (rows, 3) for each setting

Without bits vLLM is told a model type it does not know, which gets past its refusal of Gemma in float16 and changes nothing
else.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_OMP_THREADS_BIND="nobind")

LABELS = [5, 6, 7]


def logits(folder: Path, rows: list[list[int]], dtype: str, bits: int | None) -> list[list[float]]:
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    from zoo.stages.score.vllm.plugin import rescale_overrides

    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    overrides = {"head_dtype": "float32", "model_type": f"{config['model_type']}_float16", **rescale_overrides(config, bits)}
    llm = LLM(
        model=str(folder),
        dtype=dtype,
        hf_overrides=overrides,
        max_model_len=256,
        max_num_seqs=4,
        max_num_batched_tokens=512,
        kv_cache_memory_bytes=2**26,
        gpu_memory_utilization=0.05,
        logprobs_mode="raw_logits",
        enforce_eager=True,
        skip_tokenizer_init=True,
    )
    parameters = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=LABELS, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": row} for row in rows], parameters, use_tqdm=False)
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    return [[output.outputs[0].logprobs[0][label].logprob for label in LABELS] for output in outputs]


if __name__ == "__main__":
    from zoo.stages.score.vllm.plugin import register

    register()
    place = Path(sys.argv[1])
    given = json.loads((place / "rows.json").read_text())
    print(json.dumps([logits(place, given, dtype, bits) for dtype, bits in json.loads(sys.argv[2])]))
