"""Checkpoints with 8 bit activations, made by layers and judged by label probabilities.

Through the layers, one in memory at a time. Each is smoothed, trial by trial against the layer's own output, and the entry's
prompts run through it once as it is and once for every choice of what stays in 16 bits. At the end each choice has label
probabilities, and the one whose divergence from the merged model's is least is taken; a second pass rounds and writes. Of 4 bit
weights nothing stays, so that each layer is written as soon as it has been rounded, on what the rounded layers before it hand
on. Computed in float32, on a GPU with its faster products (10 bits of mantissa, far finer than what is rounded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from zoo.contracts import QuantizeSpec
from zoo.errors import ZooError
from zoo.models.heads import SCORE
from zoo.models.shapes import SCHEME_KEY
from zoo.scores.metric_names import FINER_SHARE
from zoo.stages import progress
from zoo.stages.quantize.awq_format import read_dequantized
from zoo.stages.quantize.choices import Choice, choices_of, choose
from zoo.stages.quantize.compensation import compensated
from zoo.stages.quantize.forms import Form, Rounded, form_of
from zoo.stages.quantize.layerwise import LayerwiseModel, Weights
from zoo.stages.quantize.prompt_pass import PromptPass
from zoo.stages.quantize.rounded_layer import RoundedLayer
from zoo.stages.quantize.smoothing import Site, sites_of, trials
from zoo.stages.train.classifier import MODULE

LARGEST_LAYER_ERROR = 0.5  # of what a layer adds; 8 bits are off by some 1 to 5 %, 4 bits by 5 to 20 %, a broken one by all
SEARCH_TOKENS = 256  # that a layer's smoothing is tried on


@dataclass
class LayerPlan:
    """What the first pass found for a layer.

    Scales (rows,) of each smoothed site, and the error of its output.
    """

    scales: dict[Site, torch.Tensor] = field(default_factory=dict)
    error: float = 0.0


@dataclass(frozen=True)
class Made:
    """What came out: errors of layers and weights, what was kept, and every choice's divergence."""

    layer_errors: list[float]
    weight_errors: dict[str, float]
    choice: Choice
    divergence: dict[str, float]


@torch.no_grad()
def quantize(source: Path, target: Path, prompts: list[list[int]], label_ids: Sequence[int], spec: QuantizeSpec) -> Made:
    """Write the folder `target` from the merged model in `source`.

    It is calibrated on prompts (token ids). ZooError where a layer's output is not what it was.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    form = form_of(spec)
    whole = LayerwiseModel(source, torch.float32)
    passed = PromptPass(whole, prompts)
    names = [name for name in whole.linear_names() if not any(part in name for part in spec.skip_modules)]
    if not names:
        raise ZooError("quantize.skip_modules leaves nothing to quantize; shorten it")
    choices = choices_of(whole.linear_sizes(), len(whole.layers), names, spec.most_finer)
    streams = {choice: passed.start() for choice in choices}
    plain, plans = passed.start(), []
    errors: dict[str, float] = {}
    target.mkdir()
    with progress.bar(len(whole.layers), "quantize", "layer") as bar:
        for number in range(len(whole.layers)):
            whole.load(number)
            rounding = RoundedLayer(whole.layers[number], form, names)
            plans.append(_pass_layer(whole, number, passed, rounding, spec, plain, streams))
            if form.group_size:
                errors |= _write_layer(whole, number, target, rounding, names)
            rounding.remove()
            whole.drop(number)
            bar.update()
    expected = passed.label_logits(plain, label_ids)
    divergence = {choice: _divergence(expected, passed.label_logits(stream, label_ids)) for choice, stream in streams.items()}
    choice = choose(divergence)
    errors = errors or _write(whole, target, form, plans, choice, names)
    ignored = [MODULE] if SCORE in whole.weights else []
    for number in range(len(whole.layers)):
        rounded = choice.rounded(number, names)
        ignored += [f"{whole.prefix}{number}.{name}" for name in whole.linear_names() if name not in rounded]
    whole.finish(target, form.config(ignored), dtype=whole.stored_dtype(0), more={SCHEME_KEY: form.scheme})
    told = {other.name: value for other, value in divergence.items()}
    return Made([plan.error for plan in plans], errors, choice, told)


def _pass_layer(
    whole: LayerwiseModel,
    number: int,
    passed: PromptPass,
    rounding: RoundedLayer,
    spec: QuantizeSpec,
    plain: list[torch.Tensor],
    streams: dict[Choice, list[torch.Tensor]],
) -> LayerPlan:
    """Smooth a layer, round its 4 bit weights, check it, and move every stream through it."""
    layer, form, names = rounding.layer, rounding.form, rounding.names
    few = passed.few(plain, SEARCH_TOKENS)
    sites = sites_of(layer, whole.head_dim)
    plan = _smoothed(rounding, sites, passed, number, few)
    if form.group_size:
        (stream,) = streams.values()
        _compensate(rounding, sites, passed, number, stream, clip=spec.apply_clip)
    plan.error = _output_error(rounding, passed, number, few)
    if not plan.error < LARGEST_LAYER_ERROR:
        raise ZooError(
            f"layer {number} is off by {plan.error:.2f} of what it adds once quantized to {form.scheme}; "
            "use more quantize.calibration_rows, or another quantize.scheme"
        )
    for choice, stream in streams.items():
        with rounding.active(choice.rounded(number, names)):
            passed.run(layer, number, stream)
    passed.run(layer, number, plain)
    return plan


def _compensate(
    rounding: RoundedLayer, sites: Sequence[Site], passed: PromptPass, number: int, stream: list[torch.Tensor], *, clip: bool
) -> None:
    """Round a layer's weights so that their errors make up for each other on a stream's prompts.

    Site by site: each on the inputs that the sites before it make of the stream once they are rounded.
    """
    for site in sites:
        names = [name for name in site.linears if name in rounding.names]
        if not names:
            continue
        with rounding.active(list(rounding.made)):
            second = rounding.second_moments(site, passed, number, stream)
        joined = compensated(rounding.form, torch.cat([rounding.weight(name) for name in names]), second, clip=clip)
        sizes = [len(rounding.weight(name)) for name in names]
        for name, levels, scales in zip(names, joined.levels.split(sizes), joined.scales.split(sizes), strict=True):
            rounding.made[name] = Rounded(levels, scales)


def _smoothed(
    rounding: RoundedLayer, sites: Sequence[Site], passed: PromptPass, number: int, few: list[torch.Tensor]
) -> LayerPlan:
    """Scale each site in turn by what leaves the layer's output nearest to what it was; the layer is left so."""
    plan = LayerPlan()
    expected = passed.output(rounding.layer, number, few)
    with rounding.active(rounding.names):
        least = passed.squared_error(passed.output(rounding.layer, number, few), expected)
        for site in sites:
            if not set(site.linears) & set(rounding.names):
                continue
            x_largest = rounding.largest_inputs(site.linears[0], passed, number, few)
            best = None
            before = rounding.snapshot(site)
            for scales in trials(site, x_largest, rounding.largest_weights(site)):
                rounding.restore(before)
                rounding.scale(site, scales)
                error = passed.squared_error(passed.output(rounding.layer, number, few), expected)
                if error < least:
                    best, least = scales, error
            rounding.restore(before)
            if best is not None:
                rounding.scale(site, best)
                plan.scales[site] = best
    return plan


def _output_error(rounding: RoundedLayer, passed: PromptPass, number: int, few: list[torch.Tensor]) -> float:
    """||output of the quantized layer - output|| / ||output - input|| on a few prompts."""
    expected = passed.output(rounding.layer, number, few)
    with rounding.active(rounding.names):
        output = passed.output(rounding.layer, number, few)
    added = passed.squared_error(expected, few)
    return float((passed.squared_error(output, expected) / max(added, 1e-24)) ** 0.5)


def _divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Mean KL divergence in nats of label probabilities from expected ones, from logits (prompts, 3) each."""
    p, q = expected.log_softmax(-1), found.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def _write(
    whole: LayerwiseModel, target: Path, form: Form, plans: list[LayerPlan], choice: Choice, names: list[str]
) -> dict[str, float]:
    """Smooth, round and write every layer once more. Relative errors of the weights as stored."""
    errors: dict[str, float] = {}
    with progress.bar(len(plans), "write", "layer") as bar:
        for number, plan in enumerate(plans):
            whole.load(number)
            rounded = choice.rounded(number, names)
            layer = RoundedLayer(whole.layers[number], form, names)
            for site, scales in plan.scales.items():
                if set(site.linears) & set(rounded):  # where all that reads a site stays as it is, so does the site
                    layer.scale(site, scales)
            errors |= _write_layer(whole, number, target, layer, rounded)
            layer.remove()
            whole.drop(number)
            bar.update()
    return errors


def _write_layer(
    whole: LayerwiseModel, number: int, target: Path, layer: RoundedLayer, rounded: Sequence[str]
) -> dict[str, float]:
    """Write a layer as it is now, these linears of it rounded. Relative errors of their weights as stored."""
    prefix, file = f"{whole.prefix}{number}.", f"model-{number:05d}.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    for name in rounded:
        tensors |= {f"{prefix}{name}.{key}": value for key, value in layer.form.stored(layer.rounded(name)).items()}
    for name, value in whole.layers[number].state_dict().items():
        if name.removesuffix(".weight") not in rounded:
            tensors[prefix + name] = value.to(whole.weights.read(prefix + name).dtype)
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, target / file, metadata={"format": "pt"})
    stored = Weights(target, file)
    return {prefix + name: _weight_error(stored, prefix + name, layer.weight(name)) for name in rounded}


def _weight_error(stored: Weights, module: str, weight: torch.Tensor) -> float:
    """||stored - weight|| / ||weight||, read from the file by an own reading of the layout. ZooError where it is broken."""
    restored = read_dequantized(stored, module, weight.device)
    if restored is None or restored.shape != weight.shape or not torch.isfinite(restored).all():
        raise ZooError(f"{module}: the quantized weight is missing or not finite; remove the folder and run again")
    return float((restored - weight).norm() / weight.norm().clamp_min(1e-12))


def figures(made: Made) -> dict[str, float]:
    """The metrics of a checkpoint that was made."""
    return {
        "quant/layer_error_mean": float(np.mean(made.layer_errors)),
        "quant/layer_error_max": max(made.layer_errors),
        "quant/label_kl": made.divergence[made.choice.name],
        FINER_SHARE: made.choice.share,
    }
