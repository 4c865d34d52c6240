"""Forms with 8 bit activations: how they round, and how compressed-tensors stores them.

`int8`: weights with a scale an output channel; `fp8`: the same in e4m3; `w4a8`: 4 bits in groups, both symmetric. Activations
are rounded as they come, each token by its own largest value (vllm/model_executor/kernels/linear/scaled_mm). Scales are
float32 for 8 bits, and float16 for 4, whose kernels multiply in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from zoo.contracts import QuantizeSpec, Scheme
from zoo.errors import ZooError
from zoo.models.shapes import SCHEME_KEY

INT8_LARGEST = 127.0
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0  # torch.finfo(FP8).max
INT4_LARGEST, INT4_OFFSET = 7.0, 8  # stored plus 8, so that words hold 0 to 15
TINY = 1e-12


@dataclass(frozen=True)
class Rounded:
    """A rounded weight: levels (out, in) and scales (out, groups), both in float32."""

    levels: torch.Tensor
    scales: torch.Tensor

    def weight(self) -> torch.Tensor:
        """The weight (out, in) that they stand for."""
        return self.levels * self.scales.repeat_interleave(self.levels.shape[1] // self.scales.shape[1], dim=1)


@dataclass(frozen=True)
class Form:
    """One form. `group_size`: inputs a scale of a weight; None: all of an output channel."""

    scheme: Literal["int8", "w4a8", "fp8"]
    group_size: int | None = None

    @property
    def bits(self) -> int:
        return 4 if self.scheme == "w4a8" else 8

    def scales(self, weight: torch.Tensor, limits: torch.Tensor | None = None) -> torch.Tensor:
        """Scales (out, groups) of a weight (out, in).

        `limits` (out, groups): the largest absolute value to keep of each group; by default the largest that there is.
        """
        grouped = weight.unflatten(1, (-1, self.group_size or weight.shape[1]))
        widest = grouped.abs().amax(-1) if limits is None else limits
        scales: torch.Tensor = (widest / self._largest).clamp_min(TINY)
        return scales.half().float().clamp_min(2**-24) if self.scheme == "w4a8" else scales

    @property
    def _largest(self) -> float:
        return {"int8": INT8_LARGEST, "fp8": FP8_LARGEST, "w4a8": INT4_LARGEST}[self.scheme]

    def levels(self, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """A weight's levels (out, in), in float32: what is stored, times its scale is the weight."""
        scaled = weight / scales.repeat_interleave(weight.shape[1] // scales.shape[1], dim=1)
        if self.scheme == "fp8":
            return scaled.clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8).float()
        lowest = -INT4_OFFSET if self.scheme == "w4a8" else -INT8_LARGEST
        return scaled.round().clamp(lowest, self._largest)

    def nearest(self, weight: torch.Tensor) -> Rounded:
        """Each value of a float32 weight (out, in) by itself, with scales that cut nothing."""
        scales = self.scales(weight)
        return Rounded(self.levels(weight, scales), scales)

    def stored(self, rounded: Rounded) -> dict[str, torch.Tensor]:
        """The tensors of a rounded weight by the last part of their names."""
        levels, scales = rounded.levels, rounded.scales
        if self.scheme != "w4a8":
            return {"weight": levels.to(FP8 if self.scheme == "fp8" else torch.int8), "weight_scale": scales}
        shape = torch.tensor(levels.shape, dtype=torch.int64)
        return {"weight_packed": pack_signed(levels), "weight_scale": scales.half(), "weight_shape": shape}

    def activations(self, x: torch.Tensor) -> torch.Tensor:
        """Activations (..., channels) as the kernels round them, each token by its largest value."""
        largest = FP8_LARGEST if self.scheme == "fp8" else INT8_LARGEST
        scale = (x.abs().amax(-1, keepdim=True).float() / largest).clamp_min(TINY)
        scaled = x.float() / scale
        levels = scaled.clamp(-largest, largest).to(FP8).float() if self.scheme == "fp8" else scaled.round()
        return (levels * scale).to(x.dtype)

    def config(self, ignored: list[str]) -> dict[str, Any]:
        """`quantization_config` of config.json. `ignored`: modules that stay as they are.

        A 4 bit checkpoint names no activations: Marlin rounds them by a switch of the engine, and asked for in the config
        vLLM (0.26) takes kernels of processors alone.
        """
        kind = "float" if self.scheme == "fp8" else "int"
        common = {"type": kind, "symmetric": True}
        strategy = {"strategy": "group", "group_size": self.group_size} if self.group_size else {"strategy": "channel"}
        tokens = {"num_bits": 8, **common, "strategy": "token", "dynamic": True}
        group = {
            "targets": ["Linear"],
            "weights": {"num_bits": self.bits, **common, **strategy, "dynamic": False},
            "input_activations": None if self.scheme == "w4a8" else tokens,
            "output_activations": None,
        }
        layouts = {"int8": "int-quantized", "fp8": "float-quantized", "w4a8": "pack-quantized"}
        return {
            "quant_method": "compressed-tensors",
            "format": layouts[self.scheme],
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head", *ignored],
            "kv_cache_scheme": None,
        }


def form_of(spec: QuantizeSpec) -> Form:
    """The form that a spec asks for. ZooError for AWQ, which is none of these."""
    if spec.scheme == "awq":
        raise ZooError("quantize.scheme awq has 16 bit activations; it is made by a backend")
    return Form(spec.scheme, spec.group_size if spec.scheme == "w4a8" else None)


def form_in(config: dict[str, Any]) -> Form | None:
    """The form of a checkpoint by its config.json; None where it is AWQ or not quantized."""
    scheme: Scheme | None = config.get(SCHEME_KEY)
    if scheme is None or scheme == "awq":
        return None
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    return Form(scheme, weights.get("group_size"))


def pack_signed(levels: torch.Tensor) -> torch.Tensor:
    """Levels -8 to 7 (out, in) as int32 words (out, in / 8): plus 8, from the lowest bits."""
    columns = (levels.to(torch.int64) + INT4_OFFSET).unflatten(1, (-1, 8))
    words = (columns << torch.arange(0, 32, 4, device=levels.device)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)  # two's complement
