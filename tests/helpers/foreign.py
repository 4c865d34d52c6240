"""Adapters and checkpoints as other trainers save them: plain peft and transformers, nothing of this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.paths import ROOT

ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12], [30, 8]]


def write_adapter(base: Path, folder: Path, *, classifier: bool = False, seed: int = 0, **config: Any) -> Any:
    """A LoRA adapter of random weights, far from no update at all, saved by peft; its model in float32 with the adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    if classifier:
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **config}
    task = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]} if classifier else {"task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**settings, **task))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
            if "lora_magnitude" in name:
                parameter.mul_(1.1)
            if "score.modules_to_save" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(folder)
    return adapted.eval()


def last_logits(model: Any, rows: list[list[int]] = ROWS) -> np.ndarray:
    """Logits after the last token of each row, a row at a time: all of the vocabulary, or three of a classifier."""
    import torch

    with torch.no_grad():
        found = [model(torch.tensor([row])).logits for row in rows]
    return torch.cat([one if one.dim() == 2 else one[:, -1] for one in found]).float().numpy()


def loaded(folder: Path, *, classifier: bool = False) -> Any:
    """A model folder by transformers alone in float32. AssertionError where anything in it was made of random numbers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    model, told = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not [name for name in told["missing_keys"] if not name.startswith("lm_head")], told["missing_keys"]
    return model.eval()


def gptq_layer(weight: Any, group: int) -> tuple[dict[str, Any], Any]:
    """A weight (out, in) in GPTQ's layout, packed by its definition alone, and what that holds as (out, in) in float32.

    qweight is (in / 8, out) int32, value i of a word from its lowest bits is input 8 * word + i; qzeros (groups, out / 8) hold
    the zero less 1; scales (groups, out); g_idx (in,).
    """
    import torch

    grouped = weight.float().T.unflatten(0, (-1, group))  # (groups, group, out)
    scales = (grouped.abs().amax(1) / 7).clamp_min(1e-8)
    values = (torch.round(grouped / scales.unsqueeze(1)) + 8).clamp(0, 15).to(torch.int32).flatten(0, 1)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    qweight = (values.unflatten(0, (-1, 8)) << shifts[None, :, None]).sum(1, dtype=torch.int32)
    zeros = torch.full((len(scales), weight.shape[0] // 8, 8), 7, dtype=torch.int32)
    held = ((values.unflatten(0, (-1, group)) - 8).float() * scales.half().float().unsqueeze(1)).flatten(0, 1).T.contiguous()
    return {
        "qweight": qweight,
        "qzeros": (zeros << shifts).sum(2, dtype=torch.int32),
        "scales": scales.half(),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // group,
    }, held


def gptq_folder(base: Path, folder: Path, plain: Path, *, group: int) -> tuple[Path, Path]:
    """A model folder in GPTQ's layout, and one in float32 of the values that it holds."""
    from safetensors.torch import load_file, save_file

    packed: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, value in load_file(base / "model.safetensors").items():
        if ".layers." in name and value.dim() == 2:
            parts, held = gptq_layer(value, group)
            packed |= {f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()}
            values[name] = held
        else:
            packed[name], values[name] = value, value.float()
    spec = {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": False, "sym": True, "checkpoint_format": "gptq"}
    for place, tensors, more in ((folder, packed, {"quantization_config": spec}), (plain, values, {"dtype": "float32"})):
        shutil.copytree(base, place)
        (place / "model.safetensors").unlink()
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | more))
    return folder, plain


def bitsandbytes_folder(base: Path, folder: Path, *, classifier: bool = False, **config: Any) -> Any:
    """A folder that transformers packed by bitsandbytes and saved, and its tokenizer; the model as it is there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    torch.manual_seed(5)
    kind, more = (AutoModelForSequenceClassification, {"num_labels": 3}) if classifier else (AutoModelForCausalLM, {})
    shard, dtype = config.pop("max_shard_size", "1GB"), config.pop("dtype", "auto")
    model = kind.from_pretrained(base, quantization_config=BitsAndBytesConfig(**config), dtype=dtype, **more)
    model.save_pretrained(folder, max_shard_size=shard)
    shutil.copy(base / "tokenizer.json", folder)
    return model.eval()


def quantized_by(python: Path | str, by: str, form: str, model: Path, folder: Path, rows: list[list[int]], group: int) -> str:
    """Have a library of others quantize a model into a folder, in its interpreter; where it failed its last line."""
    job = {"by": by, "form": form, "group_size": group, "model": str(model), "rows": rows, "target": str(folder)}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(job))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-P", str(ROOT / "tests" / "helpers" / "quantizers.py"), str(path)]
    return last_line(command, folder.with_suffix(".log"), environment)


def last_line(command: list[str], log: Path, environment: dict[str, str]) -> str:
    """Run a command with its output in a file; empty, or where it failed its last line."""
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "" if done.returncode == 0 else lines[-1] if lines else f"exit code {done.returncode}"


def gptq_weight(parts: dict[str, Any], *, second: bool) -> Any:
    """What GPTQ's layout holds as (out, in) in float32: scale * (value - zero), the group of each input by `g_idx`.

    Zeros are stored less 1, but for the second version of the layout (`gptq_v2`).
    """
    import torch

    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    values = ((parts["qweight"].unsqueeze(1) >> shifts[None, :, None]) & 15).flatten(0, 1)  # (in, out)
    zeros = ((parts["qzeros"].unsqueeze(2) >> shifts) & 15).flatten(1) + (0 if second else 1)  # (groups, out)
    group = parts["g_idx"].long()
    return ((values - zeros[group]).float() * parts["scales"].float()[group]).T.contiguous()


def write_plain(folder: Path, plain: Path) -> Path:
    """A quantized folder of others as one in float32 that transformers loads: each weight as its layout is defined."""
    from safetensors.torch import load_file, save_file

    from zoo.stages.quantize.awq_format import write_dequantized

    config = json.loads((folder / "config.json").read_text())
    spec = config.pop("quantization_config")
    if spec["quant_method"] != "gptq":
        write_dequantized(folder, plain)
        return plain
    shutil.copytree(folder, plain, ignore=shutil.ignore_patterns("*.safetensors*"))
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    modules = {name.removesuffix(".qweight") for name in found if name.endswith(".qweight")}
    second = spec.get("checkpoint_format") == "gptq_v2"
    values = {name: value.float() for name, value in found.items() if name.rpartition(".")[0] not in modules}
    for module in modules:
        parts = {part: found[f"{module}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}
        values[f"{module}.weight"] = gptq_weight(parts, second=second)
    save_file(values, plain / "model.safetensors", metadata={"format": "pt"})
    (plain / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return plain
