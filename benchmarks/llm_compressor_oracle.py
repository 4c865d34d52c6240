"""llm-compressor's own int8 and 4 bit weights, beside ours: `JOB.json`.

Run by its interpreter; benchmarks/quantize.py starts it. The recipes are those of its documents: SmoothQuant at 0.8 and GPTQ
for W8A8 (examples/quantization_w8a8_int8), GPTQ with symmetric groups for 4 bits. The job names the model folder, the form, the
group size, prompts (lists of token ids) and the target folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def recipe(form: str, group_size: int) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.transform import SmoothQuantModifier

    if form == "int8":
        return [SmoothQuantModifier(smoothing_strength=0.8), GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])]
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group_size, "symmetric": True}
    return [GPTQModifier(config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"])]


def main(job: dict[str, Any]) -> None:
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    if not torch.cuda.is_available():  # as in zoo/stages/quantize/backend_worker.py
        IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto" if torch.cuda.is_available() else torch.float32)
    prompts = [torch.tensor([ids]) for ids in job["prompts"]]
    rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in prompts]
    oneshot(
        model=model,
        dataset=DataLoader(rows, batch_size=None),
        recipe=recipe(job["form"], job["group_size"]),
        pipeline="sequential",
    )
    model.save_pretrained(job["target"], save_compressed=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
