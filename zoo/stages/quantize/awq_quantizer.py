"""The AWQ quantizer: autoawq's with faster searches and a check of every layer.

Both searches minimise what AWQ minimises (Lin et al. 2023, arXiv 2306.00978, section 3.2), over the same grids, so the result
is that of autoawq's code but for rounding. Five things of autoawq 0.2.9 are mended (awq/quantize/quantizer.py):

- Its clip search multiplies every weight with 512 calibration tokens, ten times over. The mean squared error of a group's
  output is d G d^T, where d is the error of the group's weights and G = X^T X / tokens: with G made once, from all tokens, a
  trial is one small matrix product.
- Its scale search copies weights to the host and back for every trial.
- It keeps the linears' inputs on the host, one copy a linear, scales them there, and moves each weight to the host and back
  after every step. Here a layer stays on one device, with one copy of what linears share (`Features`).
- It packs 4-bit values column by column: some 330,000 kernels a layer of an 8B model, a few hundred here (`pack_linear`).
- On a CPU it quantizes the wrong weights, silently: the "copies" it keeps are the weights themselves, so that the first trial
  scales them in place. A 135M model's label logits fell from 30 to 5.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.quantize.quantizer import AwqQuantizer
from awq.utils.module import get_op_name, set_op_by_name

from zoo.errors import ZooError
from zoo.stages.device import free_bytes
from zoo.stages.quantize.awq_format import pack

# A 4-bit layer is off by some 5 to 20 % of what it adds to the residual stream; a broken one by about all of it or more.
LARGEST_LAYER_ERROR = 0.8
GRID = 20  # trials of the scale search; clipping tries the upper half of as many steps
TOKENS_AT_ONCE = 8192  # of a Gram matrix, in float32


class Features(dict[str, torch.Tensor]):
    """Inputs (blocks, tokens, channels) of a layer's linears by name, on the calibration tokens.

    Linears that share an input and are scaled together have one tensor, under the first one's name. The others find it by
    `features[name]`, but `name in features` is false for them: autoawq divides the tensor of each name that it finds, in place.
    """

    def __init__(self, scaled: list[list[torch.nn.Module]]) -> None:
        """`scaled`: the linears of each set that is scaled together."""
        super().__init__()
        self._set_of = {linear: number for number, linears in enumerate(scaled) for linear in linears}
        self._first: dict[tuple[int | None, int, torch.Size], str] = {}
        self._same: dict[str, str] = {}
        self._whole: list[torch.Tensor] = []  # what was copied: while it lives, no other tensor has its address

    def __missing__(self, name: str) -> torch.Tensor:
        return self[self._same[name]]

    def keep(self, name: str, linear: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        """Forward pre-hook.

        Copy the linear's input, to the CPU where the device would be short of memory for the searches.
        """
        x = args[0].detach()
        first = self._first.setdefault((self._set_of.get(linear), x.data_ptr(), x.shape), name)
        if first != name:
            self._same[name] = first
            return
        self._whole.append(x)
        short = free_bytes(x.device) < 4 * x.nbytes  # the copy, and what a pass over a gated MLP holds beside its input
        self[name] = x.to("cpu" if short else x.device, copy=True)

    def close(self) -> None:
        """After the forward pass: let go of what was copied."""
        self._whole.clear()

    def drop(self) -> None:
        """Free the tensors.

        This includes those that autoawq's loop still refers to when the next layer's are made.
        """
        for x in self.values():
            x.data = x.new_empty(0)


class CheckedQuantizer(AwqQuantizer):
    """`AwqQuantizer` with faster searches that measures each layer it quantizes.

    `layer_errors`: a layer's ||output with quantized weights - output|| / ||output - input|| on the calibration tokens.
    """

    layer_errors: list[float]
    inps: torch.Tensor  # the layer's input, (blocks, tokens, hidden); once it has run, its output
    skipped: frozenset[torch.nn.Module] = frozenset()  # linears of the layer that are scaled with others and not quantized

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
        """The scale of each input channel that costs least.

        It comes with the names of the operation before and of the layers. Layers that are not quantized are scaled with the
        others and cost nothing: 1 where there are only such.
        """
        names = get_op_name(module, prev_op), tuple(get_op_name(module, layer) for layer in layers)
        rounded = [layer for layer in layers if layer not in self.skipped]
        if not rounded:
            return *names, layers[0].weight.new_ones(layers[0].in_features).cpu()
        inspected = module2inspect or layers[0]
        x = inp.to(next(inspected.parameters()).device)
        options = self._sanitize_kwargs({k: v for k, v in (kwargs or {}).items() if k != "use_cache"}, inspected)
        expected = finite(self._module_forward(x, inspected, options))
        weights = [layer.weight.data for layer in rounded]
        best, least = None, float("inf")
        with kept_weights(rounded):
            for scales in self._trials(x, torch.cat(weights)):
                for layer, weight in zip(rounded, weights, strict=True):
                    layer.weight.data = self.pseudo_quantize_tensor(weight * scales)[0] / scales
                error = squared_error(finite(self._module_forward(x, inspected, options)), expected)
                if error < least:
                    best, least = scales, error
        if best is None:
            raise ZooError(f"{get_op_name(module, layers[0])}: no scale gives a finite output; use other calibration rows")
        return *names, best.cpu()

    def _trials(self, x: torch.Tensor, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """Scales (inputs,) to try.

        They mix the mean size of activations with that of weights within their groups, in shares.
        """
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
        gram = self._gram(input_feat, w.device)
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

    def _gram(self, x: torch.Tensor, place: torch.device) -> torch.Tensor:
        """Gram matrices of the groups of x (..., inputs).

        Made once for linears that follow each other and share x.
        """
        last, gram = self.__dict__.get("_last_gram", (None, None))
        if last is not x or gram is None:
            gram = group_gram(x.reshape(-1, x.shape[-1]), self.group_size, place)
            self._last_gram = (x, gram)
        return gram

    def _get_input_feat(self, layer: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> Features:
        """Run the layer on all blocks, leave its output in `self.inps` and tell the linears' inputs.

        They take tokens x (3 x hidden + intermediate) x 2 bytes of a GPU for a Llama layer: 3.3 GiB for 65,536 tokens of 8B.
        """
        for part in layer.modules():
            part.cpu = partial(itself, part)  # autoawq moves what it has scaled or clipped to the CPU, to fetch it again
        options = self._sanitize_kwargs(self.module_kwargs, layer)
        scaling = self.awq_model.get_layers_for_scaling(layer, defaultdict(lambda: None), self.module_kwargs)
        self._features = Features([part["layers"] for part in scaling])
        known = set(named_linears.values())
        self.skipped = frozenset(linear for part in scaling for linear in part["layers"] if linear not in known)
        # autoawq asks for the input of a set's first linear, also of one that it was told to skip.
        hooked = [*named_linears.items(), *((get_op_name(layer, linear), linear) for linear in self.skipped)]
        hooks = [linear.register_forward_pre_hook(partial(self._features.keep, name)) for name, linear in hooked]
        self._layer_input = self.inps
        self.inps = self._module_forward(self.inps, layer, options)
        for hook in hooks:
            hook.remove()
        self._features.close()
        return self._features

    @torch.no_grad()
    def _apply_quant(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        """Put a packed linear in each linear's place; that of autoawq's `_apply_quant` to the bit."""
        self._features.drop()
        self._check_layer(module, named_linears)
        for name, linear in named_linears.items():
            linear.half()
            linear.weight.data, scales, zeros = self.pseudo_quantize_tensor(linear.weight.data)
            set_op_by_name(module, name, pack_linear(linear, self.group_size, scales.t().contiguous(), zeros.t().contiguous()))
            linear.to("meta")  # autoawq's loop holds it until the next layer's linears are listed

    @torch.no_grad()
    def _check_layer(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        """Compare the layer's output by the weights that will be stored with what it was.

        One calibration block is run.
        """
        block = self._layer_input[:1]
        module.to(block.device)  # autoawq's scaled activations are made on the CPU
        options = self._sanitize_kwargs(self.module_kwargs, module)
        if options.get("attention_mask") is not None:  # eager attention (Gemma 2) has one a block
            options["attention_mask"] = options["attention_mask"][:1]
        with kept_weights(list(named_linears.values())):
            for linear in named_linears.values():
                rounded = self.pseudo_quantize_tensor(linear.weight.data.float())[0]
                linear.weight.data = rounded.to(linear.weight.dtype)
            output = self._module_forward(block, module, options).float()
        expected = self.inps[:1].to(output.device).float()
        added = (expected - block.float()).norm().clamp_min(1e-12)
        error = float((output - expected).norm() / added)
        self.__dict__.setdefault("layer_errors", []).append(error)
        if not error < LARGEST_LAYER_ERROR:
            raise ZooError(
                f"layer {len(self.layer_errors) - 1} is off by {error:.2f} of what it adds once quantized; "
                "use a smaller quantize.group_size or more quantize.calibration_rows"
            )


def itself(module: torch.nn.Module) -> torch.nn.Module:
    return module


def pack_linear(linear: torch.nn.Linear, group_size: int, scales: torch.Tensor, zeros: torch.Tensor) -> WQLinear_GEMM:
    """Pack a weight that was rounded to its grid, on the weight's device.

    The result is that of `WQLinear_GEMM.from_linear`, to the bit. scales and zeros are (groups, out). Levels are found as
    there: round((w + zero * scale) / scale), the divisor in float16.
    """
    made = WQLinear_GEMM.from_linear(linear, 4, group_size, init_only=True)
    made.scales = scales.clone().half()
    if linear.bias is not None:
        made.bias = linear.bias.data.clone().half()
    grouped = linear.weight.data.view(linear.out_features, -1, group_size)
    shifted = grouped + (zeros * scales).t().unsqueeze(-1)
    levels = (shifted / made.scales.t().unsqueeze(-1)).round_().to(torch.int32)
    made.qweight = pack(levels.flatten(1).t())
    made.qzeros = pack(zeros.to(torch.int32))
    return made


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
    """X_g^T X_g / tokens of each group of input channels, for x of shape (tokens, inputs).

    float32 (groups, group_size, group_size).
    """
    groups = x.shape[1] // group_size
    gram = torch.zeros(groups, group_size, group_size, device=place)
    for part in x.split(TOKENS_AT_ONCE):
        channels = part.to(place).float().view(len(part), groups, group_size).permute(1, 2, 0)
        gram += channels @ channels.transpose(1, 2)
    return gram / len(x)
