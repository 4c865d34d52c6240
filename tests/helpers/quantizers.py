"""Quantizers of others, in interpreters of their own: `JOB.json` -> a checkpoint as they save it.

Imports nothing of this project, since it runs where that is not installed. A job names who quantizes (`by`), the form, the
group size, a model folder, rows of token ids to calibrate on, and the folder to write. Each form is one that the library's own
documents show, but for the group size: what is 128 there does not divide a tiny model's layers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def recipe(form: str, group: int) -> list[Any]:
    """llm-compressor's modifiers: examples/quantization_w4a16, quantization_w8a8_int8 and awq of its repository."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform import SmoothQuantModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    def grouped(**more: Any) -> dict[str, Any]:
        weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group, **more}
        return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}

    of_linear: dict[str, Any] = {"targets": "Linear", "ignore": ["lm_head"]}
    return {
        "gptq": lambda: [GPTQModifier(**grouped(symmetric=True))],
        "gptq-int8": lambda: [SmoothQuantModifier(smoothing_strength=0.8), GPTQModifier(scheme="W8A8", **of_linear)],
        "awq": lambda: [AWQModifier(), QuantizationModifier(**grouped(symmetric=False))],
        "fp8": lambda: [QuantizationModifier(scheme="FP8_DYNAMIC", **of_linear)],
        "w8a16": lambda: [QuantizationModifier(scheme="W8A16", **of_linear)],
    }[form]()


def by_llm_compressor(job: dict[str, Any]) -> None:
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not torch.cuda.is_available():  # as in zoo/stages/quantize/llm_compressor_worker.py
        IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto")
    rows = [torch.tensor([row]) for row in job["rows"]]
    given = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]
    modifiers = recipe(job["form"], job["group_size"])
    oneshot(model=model, dataset=DataLoader(given, batch_size=None), recipe=modifiers, pipeline="sequential")
    model.save_pretrained(job["target"], save_compressed=True)
    AutoTokenizer.from_pretrained(job["model"]).save_pretrained(job["target"])


def by_gptqmodel(job: dict[str, Any]) -> None:
    """GPTQModel's README: `load`, `quantize`, `save`."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores 7.7 allows itself one, and asks itself for two
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    forms = {
        "gptq": {"desc_act": False},  # which is not every version's default
        "gptq-by-activations": {"desc_act": True},
        "awq": {"method": "awq", "format": "gemm"},
    }
    config = QuantizeConfig(bits=4, group_size=job["group_size"], device="cpu", **forms[job["form"]])
    model = GPTQModel.load(job["model"], config)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in job["rows"]]
    model.quantize(rows, batch_size=1, backend=BACKEND.AUTO)
    model.save(job["target"])


def by_autoawq(job: dict[str, Any]) -> None:
    """autoawq's README: `from_pretrained`, `quantize`, `save_quantized`."""
    from awq import AutoAWQForCausalLM
    from transformers import AutoTokenizer

    model = AutoAWQForCausalLM.from_pretrained(job["model"], device_map="cpu")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    config = {"zero_point": True, "q_group_size": job["group_size"], "w_bit": 4, "version": "GEMM"}
    model.quantize(tokenizer, quant_config=config, calib_data=job["rows"], max_calib_samples=len(job["rows"]))
    model.save_quantized(job["target"])
    tokenizer.save_pretrained(job["target"])


QUANTIZERS = {"llm-compressor": by_llm_compressor, "gptqmodel": by_gptqmodel, "autoawq": by_autoawq}

if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    QUANTIZERS[given["by"]](given)
