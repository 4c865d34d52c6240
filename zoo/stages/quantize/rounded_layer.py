"""A decoder layer in which linears are computed as they are or rounded.

And what smoothing changes in it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from zoo.stages.quantize.compensation import Moments
from zoo.stages.quantize.forms import Form, Rounded
from zoo.stages.quantize.prompt_pass import PromptPass
from zoo.stages.quantize.smoothing import Site, channels_of, norm_offset, scaled_norm


class RoundedLayer:
    """A decoder layer whose linears are computed as they are or rounded, with their inputs."""

    def __init__(self, layer: torch.nn.Module, form: Form, names: list[str]) -> None:
        """`names`: of the linears that may be rounded, in the layer.

        `made`: of those the ones that are not simply rounded to the nearest.
        """
        self.layer, self.form, self.names = layer, form, names
        self.linears: dict[str, Any] = {name: layer.get_submodule(name) for name in names}
        self.made: dict[str, Rounded] = {}
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
        self.linears[name].weight.data = self.rounded(name).weight()

    def rounded(self, name: str) -> Rounded:
        """What a linear's weight becomes."""
        return self.made.get(name) or self.form.nearest(self.weight(name))

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

    def second_moments(self, site: Site, passed: PromptPass, number: int, stream: list[torch.Tensor]) -> torch.Tensor:
        """Moments (channels, channels) of a site's inputs, rounded, as what is active makes them."""
        masks, found = iter(passed.masks), Moments()
        hook = self.layer.get_submodule(site.linears[0]).register_forward_pre_hook(
            lambda _, args: found.add(self.form.activations(args[0][next(masks)]))
        )
        passed.output(self.layer, number, stream)
        hook.remove()
        return found.total()

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
