"""Checkpoints with 8 bit activations, made by layers and judged by label probabilities.

Twice through the layers, one in memory at a time. The first pass smooths each layer, trial by trial against the layer's own
output, and runs the entry's prompts through it once as it is and once for every choice of what stays in 16 bits. At the end
each choice has label probabilities, and the one whose divergence from the merged model's is least is taken. The second pass
rounds and writes. Computed in float32, on a GPU with its faster products (10 bits of mantissa, far finer than what is rounded).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from zoo.contracts import QuantizeSpec
from zoo.errors import ZooError
from zoo.models.heads import SCORE
from zoo.models.shapes import SCHEME_KEY
from zoo.scores.metric_names import FINER_SHARE
from zoo.stages import progress
from zoo.stages.device import device
from zoo.stages.quantize.awq_format import read_dequantized
from zoo.stages.quantize.choices import Choice, choices_of, choose
from zoo.stages.quantize.forms import Form, form_of
from zoo.stages.quantize.layerwise import LayerwiseModel, Weights
from zoo.stages.quantize.prompt_pass import PromptPass
from zoo.stages.quantize.smoothing import Site, channels_of, norm_offset, scaled_norm, sites_of, trials
from zoo.stages.train.classifier import MODULE

LARGEST_LAYER_ERROR = 0.5  # of what a layer adds; 8 bits are off by some 1 to 5 %, 4 bits by 5 to 20 %, a broken one by all
SEARCH_TOKENS = 256  # that a layer's smoothing is tried on
GRID = 20  # clipping tries the upper half of as many steps, as AWQ's does


@dataclass
class LayerPlan:
    """What the first pass found for a layer.

    Scales (rows,) of each smoothed site, limits (out, groups) by linear, and the error of its output.
    """

    scales: dict[Site, torch.Tensor] = field(default_factory=dict)
    limits: dict[str, torch.Tensor] = field(default_factory=dict)
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
    with progress.bar(len(whole.layers), "quantize", "layer") as bar:
        for number in range(len(whole.layers)):
            whole.load(number)
            plan = _pass_layer(whole, number, passed, form, spec, names, plain, streams)
            plans.append(plan)
            whole.drop(number)
            bar.update()
    expected = passed.label_logits(plain, label_ids)
    divergence = {choice: _divergence(expected, passed.label_logits(stream, label_ids)) for choice, stream in streams.items()}
    choice = choose(divergence)
    target.mkdir()
    errors = _write(whole, target, form, plans, choice, names)
    told = {other.name: value for other, value in divergence.items()}
    return Made([plan.error for plan in plans], errors, choice, told)


def _pass_layer(
    whole: LayerwiseModel,
    number: int,
    passed: PromptPass,
    form: Form,
    spec: QuantizeSpec,
    names: list[str],
    plain: list[torch.Tensor],
    streams: dict[Choice, list[torch.Tensor]],
) -> LayerPlan:
    """Smooth a layer, check it, and move every stream through it."""
    layer = whole.layers[number]
    rounding = RoundedLayer(layer, form, names)
    few = passed.few(plain, SEARCH_TOKENS)
    plan = _smoothed(rounding, sites_of(layer, whole.head_dim), passed, number, few)
    if spec.apply_clip and form.group_size:
        plan.limits = rounding.clipped(passed, number, few)
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
    rounding.remove()
    return plan


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


class RoundedLayer:
    """A decoder layer whose linears are computed as they are or rounded, with their inputs."""

    def __init__(self, layer: torch.nn.Module, form: Form, names: list[str]) -> None:
        """`names`: of the linears that may be rounded, in the layer."""
        self.layer, self.form, self.names = layer, form, names
        self.linears: dict[str, Any] = {name: layer.get_submodule(name) for name in names}
        self._limits: dict[str, torch.Tensor] = {}
        self._active: frozenset[str] = frozenset()
        self._hooks = [
            linear.register_forward_pre_hook(functools.partial(self._round_input, name))
            for name, linear in self.linears.items()
        ]

    def _round_input(self, name: str, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return (self.form.activations(args[0]), *args[1:]) if name in self._active else None

    @contextmanager
    def active(self, names: Sequence[str]) -> Iterator[None]:
        """Inside, these linears are rounded; the others, and all outside, are as they are."""
        self._active = frozenset(names)
        self._plain = {name: self.linears[name].weight.data for name in names}
        for name in names:
            self._round_weight(name)
        try:
            yield
        finally:
            for name, weight in self._plain.items():
                self.linears[name].weight.data = weight
            self._active = frozenset()

    def _round_weight(self, name: str) -> None:
        self.linears[name].weight.data = self.form.rounded(self._plain[name], self._limits.get(name))

    def weight(self, name: str) -> torch.Tensor:
        """A linear's weight as it is before rounding, whether it is rounded now or not."""
        return self._plain[name] if name in self._active else self.layer.get_submodule(name).weight.data

    def set_weight(self, name: str, weight: torch.Tensor) -> None:
        if name in self._active:
            self._plain[name] = weight
            self._round_weight(name)
        else:
            self.layer.get_submodule(name).weight.data = weight

    def largest_weights(self, site: Site) -> torch.Tensor:
        """Largest absolute weight (channels,) of each input of a site's linears."""
        return torch.stack([self.weight(name).abs().amax(0) for name in site.linears]).amax(0)

    def largest_inputs(self, name: str, passed: PromptPass, number: int, few: list[torch.Tensor]) -> torch.Tensor:
        """Largest absolute input (channels,) of a linear on a few prompts."""
        largest = [x.flatten(0, -2).abs().amax(0) for x in self.inputs(name, passed, number, few)]
        return torch.stack(largest).amax(0)

    def inputs(self, name: str, passed: PromptPass, number: int, few: list[torch.Tensor]) -> list[torch.Tensor]:
        """Inputs (tokens, channels) of a linear on a few prompts, without what pads them."""
        found: list[torch.Tensor] = []
        with_rounding, self._active = self._active, frozenset()  # hooks are run in order: the input before it is rounded
        hook = self.layer.get_submodule(name).register_forward_pre_hook(lambda _, args: found.append(args[0]))
        passed.output(self.layer, number, few)
        hook.remove()
        self._active = with_rounding
        return [x[mask] for x, mask in zip(found, passed.masks, strict=False)]

    def snapshot(self, site: Site) -> dict[str, Any]:
        """What scaling a site changes."""
        source = self.layer.get_submodule(site.source)
        kept: dict[str, Any] = {name: self.weight(name) for name in site.linears}
        kept[site.source] = source.weight.data if site.is_norm else self.weight(site.source)
        bias = getattr(source, "bias", None)
        return {"weights": kept, "bias": None if bias is None else bias.data, "site": site}

    def restore(self, before: dict[str, Any]) -> None:
        site: Site = before["site"]
        for name, weight in before["weights"].items():
            if name == site.source and site.is_norm:
                self.layer.get_submodule(name).weight.data = weight
            else:
                self.set_weight(name, weight)
        if before["bias"] is not None:
            self.layer.get_submodule(site.source).bias.data = before["bias"]

    def scale(self, site: Site, scales: torch.Tensor) -> None:
        """Divide a site's inputs by scales, and multiply the weights that read them.

        `scales` (rows,) are of its source.
        """
        source: Any = self.layer.get_submodule(site.source)
        if site.is_norm:
            made, scales = scaled_norm(source.weight.data, scales, offset=norm_offset(source))
            source.weight.data = made.to(source.weight.dtype)
        else:
            self.set_weight(site.source, self.weight(site.source) / scales.unsqueeze(1))
            if getattr(source, "bias", None) is not None:
                source.bias.data = source.bias.data / scales
        columns = channels_of(site, scales)
        for name in site.linears:
            self.set_weight(name, self.weight(name) * columns)

    def clipped(self, passed: PromptPass, number: int, few: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The largest absolute value (out, groups) to keep of each group of each linear.

        It is the one with the least error of the output.
        """
        from zoo.stages.quantize.awq_quantizer import group_gram

        size = self.form.group_size
        assert size
        for name in self.names:
            weight = self.weight(name)
            gram = group_gram(torch.cat(self.inputs(name, passed, number, few)), size, weight.device)
            widest = weight.unflatten(1, (-1, size)).abs().amax(-1)
            best, least = widest, torch.full_like(widest, float("inf"))
            for trial in range(GRID // 2):
                limits = widest * (1 - trial / GRID)
                off = (self.form.rounded(weight, limits) - weight).unflatten(1, (-1, size)).transpose(0, 1)
                error = ((off @ gram) * off).sum(-1).T
                best, least = torch.where(error < least, limits, best), torch.minimum(error, least)
            self._limits[name] = best.half().float()
        return {name: limits.half().cpu() for name, limits in self._limits.items()}

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _write(
    whole: LayerwiseModel, target: Path, form: Form, plans: list[LayerPlan], choice: Choice, names: list[str]
) -> dict[str, float]:
    """Round and write every layer; what is no layer, index and configuration. Relative errors of the weights as stored."""
    errors: dict[str, float] = {}
    ignored = [MODULE] if SCORE in whole.weights else []
    with progress.bar(len(plans), "write", "layer") as bar:
        for number, plan in enumerate(plans):
            prefix = f"{whole.prefix}{number}."
            whole.load(number)
            rounded = choice.rounded(number, names)
            ignored += [prefix + name for name in whole.linear_names() if name not in rounded]
            layer = RoundedLayer(whole.layers[number], form, names)
            for site, scales in plan.scales.items():
                if set(site.linears) & set(rounded):  # where all that reads a site stays as it is, so does the site
                    layer.scale(site, scales)
            layer.remove()
            limits = {name: plan.limits[name].float().to(device()) for name in rounded if name in plan.limits}
            _write_layer(whole, number, target, {name: form.stored(layer.weight(name), limits.get(name)) for name in rounded})
            stored = Weights(target, f"model-{number:05d}.safetensors")
            for name in rounded:
                errors[prefix + name] = _weight_error(stored, prefix + name, layer.weight(name))
            whole.drop(number)
            bar.update()
    whole.finish(target, form.config(ignored), dtype=whole.stored_dtype(0), more={SCHEME_KEY: form.scheme})
    return errors


def _write_layer(whole: LayerwiseModel, number: int, target: Path, stored: dict[str, dict[str, torch.Tensor]]) -> None:
    prefix = f"{whole.prefix}{number}."
    tensors: dict[str, torch.Tensor] = {}
    for name, value in whole.layers[number].state_dict().items():
        module, _, part = name.rpartition(".")
        if module in stored and part == "weight":
            tensors |= {f"{prefix}{module}.{key}": tensor for key, tensor in stored[module].items()}
        else:
            tensors[prefix + name] = value.to(whole.weights.read(prefix + name).dtype)
    save_file(
        {name: value.cpu().contiguous() for name, value in tensors.items()},
        target / f"model-{number:05d}.safetensors",
        metadata={"format": "pt"},
    )


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
