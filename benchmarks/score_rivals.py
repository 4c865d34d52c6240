"""What scoring is measured against: vLLM by hand, transformers in padded batches, and the card's own matrix rate.

Each takes rows of token ids, the longest first, and returns its figures. `score_speed.py` runs each in a process of its own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[list[int]]
LABELS = [49, 50, 51]
BATCH_ROWS = 8  # of transformers
SAMPLE_ROWS = 256  # that transformers is timed on


def tuned_vllm(rows: Rows, model: Path, *, dtype: str, cap: int, batch: int, eager: bool = True) -> dict[str, float]:
    """A script tuned by hand for these rows: all handed over at once, no tokenizer, eager mode."""
    settings = {
        "model": str(model),
        "dtype": dtype,
        "max_model_len": cap + 1,
        "max_num_seqs": 256,
        "max_num_batched_tokens": batch,
        "enforce_eager": eager,
        "skip_tokenizer_init": True,
        "logprobs_mode": "raw_logits",
        "hf_overrides": {"head_dtype": "float32"},
        "seed": 0,
    }
    return plain_vllm(rows, settings)


def plain_vllm(rows: Rows, settings: dict[str, Any]) -> dict[str, float]:
    """Start-up to the first token, then all rows, twice; of a single row the start-up alone."""
    from zoo.targets import process_age_seconds

    prepared = process_age_seconds()  # reading rows is no part of vLLM's start
    os.environ["VLLM_LOGGING_LEVEL"] = "INFO"
    from vllm import LLM, SamplingParams

    llm = LLM(**settings)
    raw = settings.get("logprobs_mode") == "raw_logits"
    parameters = SamplingParams(max_tokens=1, temperature=0, detokenize=not raw, logprob_token_ids=LABELS if raw else None)
    llm.generate([{"prompt_token_ids": rows[-1]}], parameters, use_tqdm=False)
    ready = process_age_seconds() - prepared
    if len(rows) == 1:
        return {"first_token_s": ready}
    seconds = []
    for _ in range(2):
        llm.reset_prefix_cache()
        started = time.monotonic()
        llm.generate([{"prompt_token_ids": row} for row in rows], parameters, use_tqdm=False)
        seconds.append(time.monotonic() - started)
    tokens = sum(map(len, rows))
    return {"tokens": tokens, "tokens_s": tokens / seconds[0], "second_tokens_s": tokens / seconds[1], "first_token_s": ready}


def transformers(
    rows: Rows, model: Path, config: dict[str, Any] | None, *, nf4: bool = False, shuffle: bool = False
) -> dict[str, float]:
    """Batches of 8 padded on the left to their longest row, the last position's logits only; float16, on a CPU float32.

    With a `config` the shape is drawn at random. `nf4`: linear layers in bitsandbytes' NF4, as 4-bit models ran on two T4s in
    the competition. `shuffle`: rows as they come in a file, not by length.
    """
    import torch

    sample = rows[:: max(1, len(rows) // SAMPLE_ROWS)]
    if shuffle:
        np.random.default_rng(0).shuffle(sample)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load(model, config, device)
    network = (to_nf4(network) if nf4 else network.to(device)).eval()

    def score(batch: Rows) -> Any:
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch], device=device)
        return network(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1, :3].float().cpu()

    with torch.no_grad():
        score(sample[:BATCH_ROWS])
        started = time.monotonic()
        for i in range(0, len(sample), BATCH_ROWS):
            score(sample[i : i + BATCH_ROWS])
    return {"tokens": sum(map(len, sample)), "tokens_s": sum(map(len, sample)) / (time.monotonic() - started)}


def load(model: Path, config: dict[str, Any] | None, device: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = torch.float16 if device == "cuda" else torch.float32
    if config is None:
        return AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        settings = {key: value for key, value in config.items() if key not in ("model_type", "dtype")}
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **settings))
    torch.set_default_dtype(torch.float32)
    return network


def to_nf4(model: Any) -> Any:
    """The decoder layers' matrices in NF4, on the GPU."""
    import bitsandbytes as bnb
    import torch

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            linear = bnb.nn.Linear4bit(
                module.in_features, module.out_features, bias=False, compute_dtype=torch.float16, quant_type="nf4"
            )
            linear.weight = bnb.nn.Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4")
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, linear)
    return model.to("cuda")


def matrix_rate(rows: Rows, config: dict[str, Any], shapes: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Measured float16 matrix products of random numbers in TFLOP/s, and the GFLOP that a token of these rows takes.

    A token's are two a weight of the decoder layers (`shapes`: (out, in) of a layer's matrices), and attention to what stands
    before it. Products for a fifth of a second run at full clock, for five seconds at what the card's power limit allows.
    """
    import torch

    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))

    def rate(count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            a @ b
        end.record()
        torch.cuda.synchronize()
        return count * 2 * size**3 / (start.elapsed_time(end) / 1e3) / 1e12

    rate(3)
    linear = config["num_hidden_layers"] * sum(out * into for out, into in shapes.values())
    lengths = np.array([len(row) for row in rows], dtype=np.float64)
    heads = config["num_attention_heads"] * config["head_dim"]
    attention = 2 * 2 * config["num_hidden_layers"] * heads * float((lengths * (lengths + 1) / 2).sum())  # causal half
    gflop = (2 * linear + attention / lengths.sum()) / 1e9
    return {"tflop_s": rate(100), "sustained_tflop_s": rate(3000), "gflop_token": gflop}
