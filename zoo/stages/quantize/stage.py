"""The quantize stage: AWQ or a form with 8 bit activations, with every weight checked.

AWQ's backend is autoawq, or llm-compressor or auto-round in another interpreter; the other forms are `eight_bit`'s. All are
calibrated on the entry's own prompts. Not in autoawq: one layer in memory at a time, calibration prompts that are longer than a
block are cut instead of dropped, weights that are not quantized keep the base's dtype, and the result is checked before it
counts as done.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from zoo.checks.model import check_architecture
from zoo.contracts import Measurements, QuantizeRequest, QuantizeSpec, StageResult
from zoo.data.battles import read_battles
from zoo.data.learned import carry_learned
from zoo.data.splits import select_training
from zoo.errors import ZooError
from zoo.models.heads import causal_name, head_of
from zoo.models.prompts import encode_battles, load_codec
from zoo.models.shapes import first_architecture, read_config
from zoo.scores.metric_names import WEIGHTS_GIB
from zoo.settings import backend_interpreter
from zoo.stages import progress
from zoo.stages.device import device, gpu_peak_bytes
from zoo.stages.quantize.awq_format import weight_errors
from zoo.stages.quantize.layerwise import LayerwiseModel
from zoo.stages.train.classifier import MODULE
from zoo.targets import process_age_seconds


def run(request: QuantizeRequest, out_dir: Path) -> StageResult:
    """Write the quantized model folder `out_dir/model`."""
    source, target = request.model.path / "model", out_dir / "model"
    config = json.loads((source / "config.json").read_text())
    check_supported(config, request.spec, source)
    if request.spec.scheme == "awq" and request.spec.backend != "autoawq":
        backend_interpreter(request.spec.backend)  # before anything is computed
    if request.spec.scheme in ("awq", "w4a8"):
        check_group_size(source, request.spec.group_size, request.spec.skip_modules)
    blocks = calibration_blocks(request) if request.spec.scheme == "awq" else calibration_prompts(request)
    load_seconds = process_age_seconds()
    shutil.rmtree(target, ignore_errors=True)
    if request.spec.scheme == "awq":
        metrics, peak_bytes = run_backend(source, target, blocks, request)
        errors = weight_errors(source, target)
    else:
        metrics, errors, peak_bytes = run_eight_bit(source, target, blocks, request)
    worst = max(errors, key=lambda name: errors[name])
    for path in source.glob("*"):  # what neither backend writes: tokenizer, chat template
        if path.is_file() and path.suffix != ".safetensors" and not (target / path.name).exists():
            shutil.copy2(path, target / path.name)
    carry_learned([request.model.path], out_dir)
    (out_dir / "weight_errors.json").write_text(json.dumps(errors, indent=1))
    progress.note(f"relative weight error: mean {np.mean(list(errors.values())):.4f}, largest {errors[worst]:.4f} in {worst}")
    return StageResult(
        metrics={
            **metrics,
            "quant/weight_error_mean": float(np.mean(list(errors.values()))),
            "quant/weight_error_max": errors[worst],
            WEIGHTS_GIB: sum(p.stat().st_size for p in target.glob("*.safetensors")) / 1024**3,
        },
        measurements=Measurements(
            load_seconds=load_seconds,
            run_seconds=process_age_seconds() - load_seconds,
            rows=len(blocks),
            tokens=sum(map(len, blocks)),
            peak_bytes=peak_bytes,
        ),
    )


def run_backend(source: Path, target: Path, blocks: list[list[int]], request: QuantizeRequest) -> tuple[dict[str, float], int]:
    """Quantize by the backend asked for.

    Returns metrics that only it can tell, and peak bytes of GPU memory.
    """
    if request.spec.backend != "autoawq":
        from zoo.stages.quantize import backends

        return {}, backends.quantize(source, target, blocks, request)
    layer_errors = quantize(source, target, blocks, request)
    progress.note(f"layer output error: mean {np.mean(layer_errors):.3f}, largest {max(layer_errors):.3f}")
    metrics = {"quant/layer_error_mean": float(np.mean(layer_errors)), "quant/layer_error_max": max(layer_errors)}
    return metrics, gpu_peak_bytes()


def run_eight_bit(
    source: Path, target: Path, prompts: list[list[int]], request: QuantizeRequest
) -> tuple[dict[str, float], dict[str, float], int]:
    """Make a form with 8 bit activations.

    Returns its metrics, each weight's error, and peak bytes of GPU memory.
    """
    from zoo.stages.quantize import eight_bit

    label_ids = load_codec(source, request.prompt).label_ids
    made = eight_bit.quantize(source, target, prompts, label_ids, request.spec)
    (target.parent / "choices.json").write_text(json.dumps(made.divergence, indent=1))
    told = ", ".join(f"{name} {value:.5f}" for name, value in made.divergence.items())
    progress.note(f"KL of label probabilities from the merged model's, by what stays in 16 bits: {told}")
    progress.note(f"in 16 bits: {made.choice.name}, {made.choice.share:.0%} of the linear layers' products")
    return eight_bit.figures(made), made.weight_errors, gpu_peak_bytes()


def check_supported(config: dict[str, Any], spec: QuantizeSpec, source: Path) -> None:
    """ZooError where the model's architecture cannot be quantized so.

    The error names it and what can be done.
    """
    finding = check_architecture(causal_name(first_architecture(config, source)), spec)
    if finding.verdict == "fail":
        raise ZooError(f"{source}: {finding.what}; {finding.mend}")


def linear_shapes(source: Path, skip: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes (out, in) of the two-dimensional weights inside decoder layers: what AWQ quantizes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in source.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                shape = tuple(file.get_slice(name).get_shape())
                if len(shape) == 2 and ".layers." in name and not any(part in name for part in skip):
                    shapes[name] = shape
    return shapes


def check_group_size(source: Path, group_size: int, skip: tuple[str, ...]) -> None:
    """Every quantized weight's input width must be a multiple of the group size."""
    for name, (_, width) in linear_shapes(source, skip).items():
        if width % group_size:
            fits = [g for g in (128, 64, 32) if width % g == 0]
            mend = f"set quantize.group_size = {fits[0]}" if fits else f"add {name.split('.')[-2]!r} to quantize.skip_modules"
            raise ZooError(f"quantize.group_size {group_size} does not divide {name}'s width {width}; {mend}")


def calibration_blocks(request: QuantizeRequest) -> list[list[int]]:
    """Token blocks of equal length from the training rows' prompts.

    Joined in a seeded order and cut.
    """
    spec = request.spec
    codec = load_codec(request.model.path / "model", request.prompt)
    frame, _ = select_training(read_battles(request.battles.path), request.held, say=progress.note)
    order = np.random.default_rng(spec.seed).permutation(len(frame))
    tokens: list[int] = []
    for index in order:
        row = frame.iloc[index]
        battle = (row["prompt"], row["response_a"], row["response_b"])
        tokens += encode_battles([battle], codec, request.prompt, "ab")[0].ids
        if len(tokens) >= spec.calibration_rows * spec.calibration_tokens:
            break
    size = spec.calibration_tokens
    blocks = [tokens[i : i + size] for i in range(0, len(tokens) - size + 1, size)][: spec.calibration_rows]
    if not blocks:
        raise ZooError(f"{request.battles.path}: {len(tokens)} tokens of prompts; calibration needs at least {size}")
    return blocks


def calibration_prompts(request: QuantizeRequest) -> list[list[int]]:
    """Whole prompts (token ids) from the training rows, in a seeded order.

    As many as hold the tokens that AWQ's blocks would; at least one.
    """
    spec = request.spec
    codec = load_codec(request.model.path / "model", request.prompt)
    frame, _ = select_training(read_battles(request.battles.path), request.held, say=progress.note)
    prompts: list[list[int]] = []
    for index in np.random.default_rng(spec.seed).permutation(len(frame)):
        row = frame.iloc[index]
        battle = (row["prompt"], row["response_a"], row["response_b"])
        prompts.append(encode_battles([battle], codec, request.prompt, "ab")[0].ids)
        if sum(map(len, prompts)) >= spec.calibration_rows * spec.calibration_tokens:
            break
    if not prompts:
        raise ZooError(f"{request.battles.path}: no rows to calibrate on; give a file with more prompts")
    return prompts


def quantize(source: Path, target: Path, blocks: list[list[int]], request: QuantizeRequest) -> list[float]:
    """Run autoawq on the calibration blocks, a layer at a time, and write its checkpoint.

    Returns each layer's output error.
    """
    import awq.quantize.quantizer as quantizer
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
    from awq.models.base import AwqConfig

    from zoo.stages.quantize.awq_quantizer import CheckedQuantizer

    spec = request.spec
    # A CPU multiplies float16 and emulated bfloat16 at a fraction of float32's speed.
    whole = LayerwiseModel(source, torch.float16 if device().type == "cuda" else torch.float32)
    whole.load(0)
    target.mkdir()
    quantizer.tqdm = lambda modules, **_: whole.turns(modules, target)  # its loop over the layers
    config = {"zero_point": spec.zero_point, "q_group_size": spec.group_size, "w_bit": spec.bits, "version": "GEMM"}
    skipped = [*spec.skip_modules, *([MODULE] if head_of(read_config(source)) == "classifier" else [])]
    if skipped:  # vLLM takes what is not named for quantized
        config["modules_to_not_convert"] = skipped
    kind = whole.model.config.model_type
    model = AWQ_CAUSAL_LM_MODEL_MAP[kind](whole.model, kind, False, whole.model.config, AwqConfig.from_dict(config), None)
    gc.collect()
    gc.freeze()  # garbage is collected after each layer; without this each pass walks every imported module
    model.quantize(
        None,
        quant_config=config,
        calib_data=blocks,
        max_calib_samples=len(blocks),
        max_calib_seq_len=spec.calibration_tokens,
        apply_clip=spec.apply_clip,
        quantizer_cls=CheckedQuantizer,
    )
    whole.finish(target, model.quant_config.to_transformers_dict())
    layer_errors: list[float] = model.quantizer.layer_errors
    return layer_errors
