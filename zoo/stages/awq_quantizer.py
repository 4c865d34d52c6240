"""autoawq's quantizer with its two searches done better, and a check of every layer's output.

Both searches minimise what AWQ minimises (Lin et al. 2023, arXiv 2306.00978, section 3.2), over the same grids, so the result
is that of autoawq's code but for rounding. Three things of autoawq 0.2.9 are mended (awq/quantize/quantizer.py):

- Its clip search multiplies every weight with 512 calibration tokens, ten times over. The mean squared error of a group's
  output is d G d^T, where d is the error of the group's weights and G = X^T X / tokens: with G made once, from all tokens, a
  trial is one small matrix product.
- Its scale search copies weights to the host and back for every trial.
- On a CPU it quantizes the wrong weights, silently: the "copies" it keeps are the weights themselves, so that the first trial
  scales them in place. A 135M model's label logits fell from 30 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from awq.quantize.quantizer import AwqQuantizer
from awq.utils.module import get_op_name

from zoo.errors import ZooError

# A 4-bit layer is off by some 5 to 20 % of what it adds to the residual stream; a broken one by about all of it or more.
LARGEST_LAYER_ERROR = 0.8
GRID = 20  # trials of the scale search; clipping tries the upper half of as many steps
TOKENS_AT_ONCE = 8192  # of a Gram matrix, in float32


class CheckedQuantizer(AwqQuantizer):
    """`AwqQuantizer` with faster searches that measures each layer it quantizes.

    `layer_errors`: a layer's ||output with quantized weights - output|| / ||output - input|| on the calibration tokens.
    """

    layer_errors: list[float]

    @torch.no_grad()
    def _search_best_scale(
        self,
        module: torch.nn.Module,
        prev_op: torch.nn.Module,
        layers: list[torch.nn.Linear],
        inp: torch.Tensor,
        module2inspect: torch.nn.Module | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> tuple[str, tuple[str, ...], torch.Tensor]:
        """The scale of each input channel that costs least, with the names of the operation before and of the layers."""
        inspected = module2inspect or layers[0]
        x = inp.to(next(inspected.parameters()).device)
        options = self._sanitize_kwargs({k: v for k, v in (kwargs or {}).items() if k != "use_cache"}, inspected)
        expected = finite(self._module_forward(x, inspected, options))
        weights = [layer.weight.data for layer in layers]
        best, least = None, float("inf")
        with kept_weights(layers):
            for scales in self._trials(x, torch.cat(weights)):
                for layer, weight in zip(layers, weights, strict=True):
                    layer.weight.data = self.pseudo_quantize_tensor(weight * scales)[0] / scales
                error = squared_error(finite(self._module_forward(x, inspected, options)), expected)
                if error < least:
                    best, least = scales, error
        if best is None:
            raise ZooError(f"{get_op_name(module, layers[0])}: no scale gives a finite output; use other calibration rows")
        return get_op_name(module, prev_op), tuple(get_op_name(module, layer) for layer in layers), best.cpu()

    def _trials(self, x: torch.Tensor, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """Scales (inputs,) to try: from the mean size of activations and of weights within their groups, in shares."""
        grouped = weight.view(-1, self.group_size).abs()
        w_mean = (grouped / (grouped.amax(dim=1, keepdim=True) + 1e-6)).view(weight.shape).mean(0)
        x_mean = x.view(-1, x.shape[-1]).abs().mean(0, dtype=torch.float32).to(x.dtype)
        for trial in range(GRID):
            share = trial / GRID
            scales = (x_mean.pow(share) / (w_mean.pow(1 - share) + 1e-4)).clamp(min=1e-4)
            scales = scales / (scales.max() * scales.min()).sqrt()
            yield torch.nan_to_num(scales, nan=1.0, posinf=1.0)

    @torch.no_grad()
    def _compute_best_clip(self, w: torch.Tensor, input_feat: torch.Tensor, **_: Any) -> torch.Tensor:
        """The largest absolute value to keep of each group of a weight (out, in): (out, groups, 1)."""
        gram = group_gram(input_feat.reshape(-1, w.shape[1]), self.group_size, w.device)
        grouped = w.view(w.shape[0], -1, self.group_size)
        widest = grouped.abs().amax(dim=-1, keepdim=True)
        best, least = widest.clone(), torch.full_like(widest, float("inf"), dtype=torch.float32)
        for trial in range(GRID // 2):
            limit = widest * (1 - trial / GRID)
            clipped = torch.clamp(grouped, -limit, limit).view(w.shape)
            off = (self.pseudo_quantize_tensor(clipped)[0] - w).float().view(grouped.shape).transpose(0, 1)
            error = ((off @ gram) * off).sum(-1).T.unsqueeze(-1)
            best = torch.where(error < least, limit, best)
            least = torch.minimum(error, least)
        return best

    def _get_input_feat(self, layer: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> Any:
        self._layer_input = self.inps
        return super()._get_input_feat(layer, named_linears)  # leaves the layer's own output in self.inps

    def _apply_quant(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        self._check_layer(module, named_linears)
        super()._apply_quant(module, named_linears)

    @torch.no_grad()
    def _check_layer(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        """Run one calibration block with the weights that will be stored, and compare with the layer as it was."""
        place, device = next(module.parameters()).device, self._layer_input.device
        module.to(device)  # on a GPU autoawq has moved what it scaled and clipped back to the CPU
        block = self._layer_input[:1]
        with kept_weights(list(named_linears.values())):
            for linear in named_linears.values():
                rounded = self.pseudo_quantize_tensor(linear.weight.data.float())[0]
                linear.weight.data = rounded.to(linear.weight.dtype)
            output = self._module_forward(block, module, self._sanitize_kwargs(self.module_kwargs, module)).float()
        module.to(place)
        expected = self.inps[:1].to(output.device).float()
        added = (expected - block.float()).norm().clamp_min(1e-12)
        error = float((output - expected).norm() / added)
        self.__dict__.setdefault("layer_errors", []).append(error)
        if not error < LARGEST_LAYER_ERROR:
            raise ZooError(
                f"layer {len(self.layer_errors) - 1} is off by {error:.2f} of what it adds once quantized; "
                "use a smaller quantize.group_size or more quantize.calibration_rows"
            )


@contextmanager
def kept_weights(layers: list[torch.nn.Linear]) -> Iterator[None]:
    """Whatever is put in place of the layers' weights inside, they are as they were outside."""
    weights = [layer.weight.data for layer in layers]
    try:
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.data = weight


def finite(output: torch.Tensor) -> torch.Tensor:
    """Values beyond the dtype's range at its ends."""
    return output.clip(torch.finfo(output.dtype).min, torch.finfo(output.dtype).max)


def squared_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Sum of squared differences, widened in pieces."""
    pieces = zip(output.flatten(0, -2).split(TOKENS_AT_ONCE), expected.flatten(0, -2).split(TOKENS_AT_ONCE), strict=True)
    return float(torch.stack([(a - b).float().pow(2).sum() for a, b in pieces]).sum())


def group_gram(x: torch.Tensor, group_size: int, place: torch.device) -> torch.Tensor:
    """X_g^T X_g / tokens of each group of input channels, float32 (groups, group_size, group_size); x is (tokens, inputs)."""
    groups = x.shape[1] // group_size
    gram = torch.zeros(groups, group_size, group_size, device=place)
    for part in x.split(TOKENS_AT_ONCE):
        channels = part.to(place).float().view(len(part), groups, group_size).permute(1, 2, 0)
        gram += channels @ channels.transpose(1, 2)
    return gram / len(x)
