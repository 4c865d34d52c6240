"""Gemma 2 in float16, with and without rescaling, against float32: label logits of the 9B shape with random AWQ weights.

    python benchmarks/gemma_float16.py FOLDER [-o gemma_float16.md]

Three sets of weights that differ in their norms only: as drawn; a residual stream beyond 65504; products of gate and up beyond
it. Each is scored by vLLM with the kernels a T4 takes (Marlin, Triton attention): in float16 as it is, in float16 rescaled, and
for comparison in bfloat16. The reference is transformers in float32 with the same weights, dequantized. Forced to run in
float16 "as it is", vLLM is told another model type, since it refuses Gemma 2 there. FOLDER takes 7 GiB of weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from random_weights import GEMMA_2_9B, round_weight, write_index

DEVIATION = 0.02  # of the weights drawn
GROUP = 128
LABELS = (235, 236, 237)
CASES = {"as drawn": (1.0, 1.0), "large residual stream": (40000.0, 1.0), "large products": (1.0, 120.0)}
# name -> (dtype, rescaled, compiled)
SETTINGS = {
    "bfloat16": ("bfloat16", False, False),
    "float16": ("float16", False, False),
    "float16 rescaled": ("float16", True, False),
    "float16 rescaled, compiled": ("float16", True, True),
}


# --- weights ------------------------------------------------------------------------------------------------------------


def write_layers(folder: Path, config: dict[str, Any]) -> None:
    """Embedding and linear layers, the latter rounded to AWQ's layout; a file a layer."""
    import torch
    from safetensors.torch import save_file

    from zoo.models.shapes import linear_layers, shape_of_config
    from zoo.stages.device import device

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device()).manual_seed(0)

    def draw(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator, device=device()) * DEVIATION

    for layer in range(config["num_hidden_layers"]):
        tensors = {}
        for name, (inputs, outputs) in linear_layers(shape_of_config(config)).items():
            block = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            for part, value in round_weight(draw(outputs, inputs), GROUP).items():
                tensors[f"model.layers.{layer}.{block}.{name}.{part}"] = value.cpu().contiguous()
        save_file(tensors, folder / f"model-{layer:03d}.safetensors", metadata={"format": "pt"})
    embedding = draw(config["vocab_size"], config["hidden_size"]).half().cpu()
    save_file({"model.embed_tokens.weight": embedding}, folder / "model-embedding.safetensors", metadata={"format": "pt"})


def write_case(layers: Path, folder: Path, config: dict[str, Any], residual: float, product: float) -> None:
    """A model folder of the shared layers and norms of its own.

    `residual`: deviation of the residual stream after the last layer (1: post-norms of weight 1); `product`: deviation of
    gate and of up (1: pre-feed-forward norms of weight 1).
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for shard in layers.glob("*.safetensors"):
        (folder / shard.name).hardlink_to(shard)
    width, depth = config["hidden_size"], config["num_hidden_layers"]
    post = residual / (2 * depth) ** 0.5 if residual > 1 else 1.0
    pre = product / (DEVIATION * width**0.5) if product > 1 else 1.0
    factors = {"input": 1.0, "post_attention": post, "pre_feedforward": pre, "post_feedforward": post}
    names = {f"model.layers.{i}.{name}_layernorm.weight": f for i in range(depth) for name, f in factors.items()}
    norms = {name: torch.full((width,), factor - 1, dtype=torch.float16) for name, factor in names.items()}  # stored as w - 1
    norms["model.norm.weight"] = torch.zeros(width, dtype=torch.float16)
    save_file(norms, folder / "model-norms.safetensors", metadata={"format": "pt"})
    write_index(folder)
    quantization = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16", "quantization_config": quantization}))


def random_rows(config: dict[str, Any], count: int, longest: int) -> list[list[int]]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(16, longest + 1, size=count)
    return [generator.integers(300, config["vocab_size"], size=n).tolist() for n in lengths]


# --- two ways to score, each in a process of its own ----------------------------------------------------------------------


def reference(folder: Path, rows: list[list[int]]) -> dict[str, Any]:
    """Label logits in float32 by transformers, and the largest numbers that appear where float16 can overflow."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from zoo.stages.device import device
    from zoo.stages.quantize.awq_format import PARTS, dequantize

    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    tensors: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
    with torch.device(device()), torch.no_grad():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.copy_(tensors[name].to(device()).float())
                continue
            parts = [tensors[f"{name.removesuffix('weight')}{part}"].to(device()) for part in PARTS]
            parameter.copy_(dequantize(*parts))
        largest = watch(model)
        logits = [model(torch.tensor([row]), logits_to_keep=1).logits[0, -1, list(LABELS)].tolist() for row in rows]
    return {"logits": logits, "largest": largest}


def watch(model: Any) -> dict[str, float]:
    """A mapping that fills, as the model runs, with the largest absolute values of three places."""
    largest = dict.fromkeys(("residual", "product", "down_proj"), 0.0)

    def note(place: str, value: Any) -> None:
        largest[place] = max(largest[place], float(value.abs().max()))

    def after_layer(_: Any, inputs: Any, out: Any) -> None:
        note("residual", out[0] if isinstance(out, tuple) else out)

    def after_down(_: Any, inputs: Any, out: Any) -> None:
        note("product", inputs[0])
        note("down_proj", out)

    for layer in model.model.layers:
        layer.register_forward_hook(after_layer)
        layer.mlp.down_proj.register_forward_hook(after_down)
    return largest


def serve(folder: Path, rows: list[list[int]], dtype: str, bits: int | None, *, compiled: bool) -> dict[str, Any]:
    """Label logits by vLLM; null where they are no number."""
    import torch
    from vllm import LLM, SamplingParams

    from zoo.stages.score.vllm.plugin import register, rescale_overrides

    register()
    config = json.loads((folder / "config.json").read_text())
    overrides = {"head_dtype": "float32", "model_type": f"{config['model_type']}_float16", **rescale_overrides(config, bits)}
    llm = LLM(
        model=str(folder),
        dtype=dtype,
        hf_overrides=overrides,
        max_model_len=max(map(len, rows)) + 1,
        max_num_seqs=16,
        max_num_batched_tokens=4096,
        logprobs_mode="raw_logits",
        kv_cache_memory_bytes=(4 << 30) if torch.cuda.is_available() else (1 << 28),
        gpu_memory_utilization=0.05,
        enforce_eager=not compiled,
        skip_tokenizer_init=True,
        **({"attention_backend": "TRITON_ATTN"} if torch.cuda.is_available() else {}),
    )
    parameters = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=list(LABELS), detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": row} for row in rows], parameters, use_tqdm=False)
    logits = np.array([[output.outputs[0].logprobs[0][label].logprob for label in LABELS] for output in outputs])
    return {"logits": np.where(np.isfinite(logits), logits, None).tolist()}


# --- table --------------------------------------------------------------------------------------------------------------


def answer_name(args: argparse.Namespace, job: dict[str, Any]) -> str:
    """A file name that tells what a job's answer depends on beside the weights: a second run takes none of another's."""
    rows = [f"{args.rows}_rows", f"longest_{args.longest}"]
    engine = [] if job["setting"] == "reference" else [f"bits_{args.bits}", f"vllm_{vllm_version()}"]
    return "-".join(str(part).replace(" ", "_").replace(",", "") for part in [job["case"], job["setting"], *rows, *engine])


def run_apart(args: argparse.Namespace, job: dict[str, Any]) -> dict[str, Any]:
    """One job in a process of its own, which frees the GPU when it ends; its answer, kept in a file for a second run."""
    name = answer_name(args, job)
    answer, log = args.folder / f"{name}.json", args.folder / f"{name}.log"
    if not answer.exists():
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_DISABLED_KERNELS": "MacheteLinearKernel"}
        command = [sys.executable, __file__, *sys.argv[1:], "--job", json.dumps({**job, "answer": str(answer)})]
        with log.open("w") as file:
            code = subprocess.run(command, env={**os.environ, **settings}, stdout=file, stderr=subprocess.STDOUT).returncode
        if code:
            raise SystemExit(f"{name} failed:\n{log.read_text()[-3000:]}")
    print(f"{name}: done", flush=True)
    answered: dict[str, Any] = json.loads(answer.read_text())
    return answered


def run_job(args: argparse.Namespace, job: dict[str, Any]) -> None:
    rows, folder = random_rows(args.config, args.rows, args.longest), args.folder / job["case"].replace(" ", "_")
    if job["setting"] == "reference":
        answer = reference(folder, rows)
    else:
        dtype, rescaled, compiled = SETTINGS[job["setting"]]
        answer = serve(folder, rows, dtype, args.bits if rescaled else None, compiled=compiled)
    Path(job["answer"]).write_text(json.dumps(answer))


def table(answers: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """A row for each set of weights and setting: rows without a number, and differences from float32 of the others."""
    lines = [
        "| norms | residual, max | product, max | down_proj, max | engine | rows not finite | logit off, mean | logit off, max "
        "| probability off, max |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (case, setting), answer in answers.items():
        if setting == "reference":
            continue
        exact = np.array(answers[case, "reference"]["logits"])
        found = np.array(answer["logits"], dtype=float)
        finite = np.isfinite(found).all(axis=1)
        difference = np.abs(found - exact)[finite]
        probability = np.abs(softmax(found[finite]) - softmax(exact[finite]))
        cells = [f"{array.max():.5f}" if finite.any() else "" for array in (difference, probability)]
        mean = f"{difference.mean():.5f}" if finite.any() else ""
        numbers = [f"{value:.0f}" for value in answers[case, "reference"]["largest"].values()]
        rows = f"{int((~finite).sum())} of {len(finite)}"
        lines.append(f"| {case} | {' | '.join(numbers)} | {setting} | {rows} | {mean} | {cells[0]} | {cells[1]} |")
    return lines


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    result: np.ndarray = weights / weights.sum(axis=1, keepdims=True) if len(logits) else logits
    return result


def jobs_of(cases: list[str]) -> list[dict[str, str]]:
    """The references first, each alone on the GPU; compiled only where the residual stream is large."""
    served = [(case, name) for case in cases for name in SETTINGS if "compiled" not in name or case == "large residual stream"]
    return [{"case": case, "setting": "reference"} for case in cases] + [{"case": c, "setting": s} for c, s in served]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="scratch folder; a second run goes on with what it finds there")
    parser.add_argument("--shape", action="append", default=[], metavar="KEY=NUMBER", help="changes to the 9B shape")
    parser.add_argument("--bits", type=int, default=4, help="rescaled by 2^-bits")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--longest", type=int, default=1024, help="tokens of the longest row")
    parser.add_argument("--jobs", type=int, default=3, help="engines at a time")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.config = {**GEMMA_2_9B, **{key: int(value) for key, value in (item.split("=") for item in args.shape)}}
    if args.job:
        return run_job(args, json.loads(args.job))

    layers = args.folder / "layers"
    if not (layers / "model-embedding.safetensors").exists():
        write_layers(layers, args.config)
    for case, (residual, product) in CASES.items():
        if not (args.folder / case.replace(" ", "_") / "config.json").exists():
            write_case(layers, args.folder / case.replace(" ", "_"), args.config, residual, product)
    jobs = jobs_of(list(CASES))
    answers = {(job["case"], job["setting"]): run_apart(args, job) for job in jobs if job["setting"] == "reference"}
    with ThreadPoolExecutor(args.jobs) as pool:
        served = [job for job in jobs if job["setting"] != "reference"]
        for job, answer in zip(served, pool.map(lambda job: run_apart(args, job), served), strict=True):
            answers[job["case"], job["setting"]] = answer
    from zoo.targets import machine_fingerprint

    lines = [
        f"{machine_fingerprint()}, vLLM {vllm_version()}, rescaled by 2^-{args.bits}, {args.rows} rows",
        "",
        *table(answers),
    ]
    print("\n".join(lines))
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")


def vllm_version() -> str:
    from zoo.checks.kernels import engine_at_hand

    return engine_at_hand() or "unknown"


if __name__ == "__main__":
    main()
