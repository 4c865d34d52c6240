"""Which part of `w4a8` costs label probabilities: weights, activations, or how they are rounded.

    python benchmarks/forms_rounding.py --model FOLDER --battles CSV [--entry smollm2-135m] [--calibration 24] [--rows 24]
        [--cap 256] [--group-size 32] [--ways WAY ...] [--out CSV] [--by-layer N ...]

Ways are run one after the other, each from the first layer to the last: weights alone to the nearest (symmetric; with zero
points), activations alone, both to the nearest, both as the stage makes them, these weights with activations of 16 bits, and
the stage's with one thing changed: which tokens the second moments count and how much, damping, smoothing or none.
Mean KL divergence of the labels' probabilities from the unquantized model's, in float32, on held-out rows and on the
calibration rows, in the entry's own template; and how far the last token's hidden state is off, which three labels tell less
finely. With `--out` each row's figures, for paired differences. With `--by-layer` each of these layers by itself instead, on
what the unquantized model hands it: how far its output is off.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.contracts import Held, PromptSpec, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import select_rows, select_training
from zoo.entries.load import load_entry
from zoo.models.prompts import encode_battles, load_codec
from zoo.scores.metrics import mean_and_error
from zoo.stages.quantize import compensation, eight_bit
from zoo.stages.quantize.compensation import Moments, compensated
from zoo.stages.quantize.forms import Form, Rounded
from zoo.stages.quantize.layerwise import LayerwiseModel
from zoo.stages.quantize.prompt_pass import PromptPass, Stream
from zoo.stages.quantize.rounded_layer import RoundedLayer
from zoo.stages.quantize.smoothing import Site, sites_of

Counted = Callable[
    [torch.Tensor, torch.Tensor], torch.Tensor
]  # inputs (tokens, channels) of a weight as the moments count them

LATER_DAMPING = compensation.DAMPING[1:]  # where a factor cannot be had with the first


@dataclass(frozen=True)
class Way:
    """One way of rounding a model.

    `weights`: "", "nearest", "zero points" or "compensated"; `smoothed`: by the error of "all" tokens, of the "rest" without
    each prompt's first, or "relative" to each token's size; `held_out`: whether activations are rounded on the held-out rows
    too; `counted`: how moments count tokens (`COUNTED`); `damping`: a share of the moments' mean diagonal, with `own` of each
    channel's own moment instead.
    """

    name: str
    weights: str = ""
    activations: bool = True
    smoothed: str = "all"
    held_out: bool = True
    counted: str = "all"
    damping: float = compensation.DAMPING[0]
    own: bool = False
    clip: bool = True


MADE = Way("made", "compensated")
WAYS = (
    Way("weights", "nearest", activations=False, smoothed=""),
    Way("weights-zeros", "zero points", activations=False, smoothed=""),
    Way("activations", smoothed=""),
    Way("activations-smoothed"),
    Way("nearest", "nearest", smoothed=""),
    Way("nearest-smoothed", "nearest"),
    MADE,
    replace(MADE, name="made-16-bit-activations", held_out=False),
    replace(MADE, name="made-weights", activations=False),
    replace(MADE, name="unsmoothed", smoothed=""),
    replace(MADE, name="no-clip", clip=False),
    replace(MADE, name="no-first", counted="rest"),
    replace(MADE, name="no-first-smoothed", counted="rest", smoothed="rest"),
    replace(MADE, name="clipped", counted="clipped"),
    replace(MADE, name="by-size", counted="by size"),
    replace(MADE, name="by-size-relative", counted="by size", smoothed="relative"),
    replace(MADE, name="by-output", counted="by output"),
    replace(MADE, name="by-output-relative", counted="by output", smoothed="relative"),
    replace(MADE, name="relative", smoothed="relative"),
    *(replace(MADE, name=f"damping-{share}", damping=share) for share in (0.001, 0.05, 0.1, 0.3)),
    *(replace(MADE, name=f"own-damping-{share}", damping=share, own=True) for share in (0.01, 0.1)),
    *(
        replace(MADE, name=f"relative-own-damping-{share}", smoothed="relative", damping=share, own=True)
        for share in (0.01, 0.1)
    ),
    *(replace(MADE, name=f"by-size-damping-{share}", counted="by size", damping=share) for share in (0.05, 0.1, 0.3)),
)


class Reached(Exception):
    """A site's inputs have been seen: what the layer makes of them is not needed."""


def with_zero_points(weight: torch.Tensor, size: int) -> torch.Tensor:
    """A weight (out, in) rounded to 16 levels between a group's least and largest value, 0 among them."""
    grouped = weight.unflatten(1, (-1, size))
    low, high = grouped.amin(-1, keepdim=True).clamp_max(0), grouped.amax(-1, keepdim=True).clamp_min(0)
    scale = ((high - low) / 15).clamp_min(1e-9)
    zero = (-low / scale).round()
    return ((((grouped / scale).round() + zero).clamp(0, 15) - zero) * scale).flatten(1)


def by_size(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Each token of the same size."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def by_output(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Each token so that what the weight makes of it is of the same size, as a norm after it sees it."""
    return x / (x @ weight.T).norm(dim=-1, keepdim=True).clamp_min(1e-6)


def clipped(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """No token more than twice as large as the median."""
    sizes = x.norm(dim=-1, keepdim=True)
    return x * (2 * sizes.median() / sizes.clamp_min(1e-6)).clamp_max(1)


COUNTED: dict[str, Counted] = {
    "all": lambda x, _: x,
    "rest": lambda x, _: x,
    "clipped": clipped,
    "by size": by_size,
    "by output": by_output,
}


def without_first(prompts: PromptPass) -> PromptPass:
    """The same prompts, each one's first token not counted."""
    made = copy.copy(prompts)
    made.masks = [mask.clone() for mask in prompts.masks]
    for mask in made.masks:
        mask[:, 0] = False
    return made


def relative(prompts: PromptPass) -> PromptPass:
    """The same prompts, squared errors as shares of each token's own size."""

    def squared_error(stream: Stream, expected: Stream) -> float:
        parts = zip(stream, expected, prompts.masks, strict=False)
        return float(sum(((a - b)[m].pow(2).sum(-1) / b[m].pow(2).sum(-1)).sum() for a, b, m in parts))

    made = copy.copy(prompts)
    made.squared_error = squared_error  # type: ignore[method-assign]
    return made


def second_moments(way: Way, rounding: RoundedLayer, site: Site, prompts: PromptPass, number: int, stream: Stream) -> Any:
    """A site's moments (channels, channels), as the stage takes them but for what the way changes."""
    prompts = without_first(prompts) if way.counted == "rest" else prompts
    found, counted = Moments(), COUNTED[way.counted]
    weight = torch.cat([rounding.weight(name) for name in site.linears])
    for i, (x, mask) in enumerate(zip(stream, prompts.masks, strict=True)):

        def note(_: Any, args: tuple[torch.Tensor, ...], mask: torch.Tensor = mask) -> None:
            found.add(counted(rounding.form.activations(args[0][mask]) if way.activations else args[0][mask], weight))
            raise Reached

        hook = rounding.layer.get_submodule(site.linears[0]).register_forward_pre_hook(note)
        with contextlib.suppress(Reached):
            rounding.layer(x, **prompts._arguments[i][number])
        hook.remove()
    return found.total()


def compensate(
    way: Way, rounding: RoundedLayer, sites: tuple[Site, ...], prompts: PromptPass, number: int, stream: Stream
) -> None:
    """`eight_bit._compensate` but for what the way changes."""
    compensation.DAMPING = (1e-6 if way.own else way.damping, *LATER_DAMPING)
    for site in sites:
        with rounding.active(list(rounding.made)):
            if not way.activations:
                rounding._active = frozenset()
            second = second_moments(way, rounding, site, prompts, number, stream)
            if not way.activations:
                rounding._active = frozenset(rounding.made)
        if way.own:
            second.diagonal().mul_(1 + way.damping)
        joined = compensated(rounding.form, torch.cat([rounding.weight(name) for name in site.linears]), second, clip=way.clip)
        sizes = [len(rounding.weight(name)) for name in site.linears]
        for name, levels, scales in zip(site.linears, joined.levels.split(sizes), joined.scales.split(sizes), strict=True):
            rounding.made[name] = Rounded(levels, scales)


@dataclass
class Streams:
    calibration: Stream
    held_out: Stream


class Measured:
    """The model unquantized: prompts of both kinds, each layer's input on a few of them, and what comes out."""

    def __init__(self, asked: argparse.Namespace, prompt: PromptSpec) -> None:
        battles = read_battles(asked.battles)
        training, _ = select_training(battles, Held(), say=print)
        training = training.iloc[np.random.default_rng(0).permutation(len(training))[: asked.calibration]]
        held_out = select_rows(battles, Selection(max_rows=asked.rows), Held())
        codec = load_codec(asked.model, prompt)
        self.label_ids = codec.label_ids
        self.whole = LayerwiseModel(asked.model, torch.float32)

        def encoded(frame: Any) -> list[list[int]]:
            turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
            return [row.ids for row in encode_battles(turns, codec, prompt, "ab", asked.cap)]

        rows = encoded(training), encoded(held_out)
        print(f"{sum(map(len, rows[0]))} calibration tokens, {sum(map(len, rows[1]))} held out", flush=True)
        self.calibration, self.held_out = (PromptPass(self.whole, found) for found in rows)
        self.few: list[Stream] = []
        self.plain = self.start()
        self.inputs: dict[int, Streams] = {}  # of the layers that are looked at by themselves
        for number, layer in enumerate(self.whole.layers[: max(asked.by_layer) + 1 if asked.by_layer else None]):
            if number in asked.by_layer:
                self.inputs[number] = Streams(list(self.plain.calibration), list(self.plain.held_out))
            self.whole.load(number)
            self.few.append(self.calibration.few(list(self.plain.calibration), eight_bit.SEARCH_TOKENS))
            self.tell_sizes(number)
            self.run(layer, number, self.plain)

    def start(self) -> Streams:
        return Streams(self.calibration.start(), self.held_out.start())

    def run(self, layer: torch.nn.Module, number: int, streams: Streams) -> None:
        self.calibration.run(layer, number, streams.calibration)
        self.held_out.run(layer, number, streams.held_out)

    def tell_sizes(self, number: int) -> None:
        """How much of each site's moments each prompt's first token is."""
        rounding = RoundedLayer(self.whole.layers[number], Form("w4a8", 32), self.whole.linear_names())
        shares = []
        for site in sites_of(rounding.layer, self.whole.head_dim):
            rest = second_moments(
                replace(MADE, counted="rest"), rounding, site, self.calibration, number, self.plain.calibration
            )
            every = second_moments(MADE, rounding, site, self.calibration, number, self.plain.calibration)
            shares.append(1 - float(rest.trace() / every.trace()))
        rounding.remove()
        told = ", ".join(f"{share:.3f}" for share in shares)
        print(f"layer {number}: first tokens' share of the moments, site by site: {told}", flush=True)

    def by_layer(self, way: Way, number: int, form: Form) -> str:
        """How far held-out rows' output of a layer is off without each one's first token, and that token's share."""
        streams = Streams(list(self.inputs[number].calibration), list(self.inputs[number].held_out))
        self.whole.load(number)
        before = self.inputs[number].held_out
        expected = self.held_out.output(self.whole.layers[number], number, before)
        self.through_layer(way, number, form, streams)
        rest = without_first(self.held_out)
        error, added = rest.squared_error(streams.held_out, expected), rest.squared_error(expected, before)
        first = 1 - error / self.held_out.squared_error(streams.held_out, expected)
        return f"off by {(error / added) ** 0.5:.4f} of what the layer adds; first tokens' share of the error {first:.3f}"

    def last(self, stream: Stream) -> torch.Tensor:
        """The last token's hidden state of each held-out row."""
        masks = self.held_out.masks
        ends = [x[torch.arange(len(x), device=x.device), m.sum(1) - 1] for x, m in zip(stream, masks, strict=True)]
        return torch.cat(ends).cpu()

    def through(self, way: Way, form: Form) -> tuple[np.ndarray, np.ndarray, float]:
        """KL and error of the last hidden state of each held-out row, and the mean KL on the calibration rows."""
        streams = self.start()
        for number in range(len(self.whole.layers)):
            self.whole.load(number)
            self.through_layer(way, number, form, streams)
        expected = self.held_out.label_logits(self.plain.held_out, self.label_ids).log_softmax(-1)
        found = self.held_out.label_logits(streams.held_out, self.label_ids).log_softmax(-1)
        states = self.last(self.plain.held_out)
        off = (self.last(streams.held_out) - states).norm(dim=-1) / states.norm(dim=-1)
        seen = eight_bit._divergence(
            self.calibration.label_logits(self.plain.calibration, self.label_ids),
            self.calibration.label_logits(streams.calibration, self.label_ids),
        )
        by_batch = [row for rows in self.held_out._rows for row in rows]
        off = off[torch.tensor(by_batch).argsort()]
        return (expected.exp() * (expected - found)).sum(-1).numpy(), off.numpy(), seen

    def through_layer(self, way: Way, number: int, form: Form, streams: Streams) -> None:
        rounding = RoundedLayer(self.whole.layers[number], form, self.whole.linear_names())
        self.round(way, rounding, number, streams)
        with rounding.active(rounding.names):
            for name, linear in rounding.linears.items():
                if way.weights == "zero points":
                    linear.weight.data = with_zero_points(rounding.weight(name), form.group_size or 1)
                elif not way.weights:
                    linear.weight.data = rounding.weight(name)
            if not way.activations:
                rounding.remove()
            self.calibration.run(rounding.layer, number, streams.calibration)
            if not way.held_out:
                rounding.remove()
            self.held_out.run(rounding.layer, number, streams.held_out)
        rounding.remove()

    def round(self, way: Way, rounding: RoundedLayer, number: int, streams: Streams) -> None:
        """Smooth a layer and make its weights, as far as the way does."""
        sites = sites_of(rounding.layer, self.whole.head_dim)
        if way.smoothed:
            prompts = {"all": self.calibration, "rest": without_first(self.calibration), "relative": relative(self.calibration)}
            eight_bit._smoothed(rounding, sites, prompts[way.smoothed], number, self.few[number])
        if way.weights == "compensated":
            compensate(way, rounding, sites, self.calibration, number, streams.calibration)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--battles", type=Path, required=True)
    parser.add_argument("--entry", default="smollm2-135m", help="whose template and labels are taken")
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--cap", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--by-layer", type=int, nargs="+", default=[])
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    prompt = load_entry(asked.entry).prompt
    assert prompt is not None
    ways = {way.name: way for way in WAYS}
    with torch.no_grad():
        measured = Measured(asked, prompt)
        for number in asked.by_layer:
            for name in asked.ways:
                found = measured.by_layer(ways[name], number, Form("w4a8", asked.group_size))
                print(f"layer {number}, {name}: {found}", flush=True)
        if asked.by_layer:
            return
        for name in asked.ways:
            started = time.perf_counter()
            kl, off, seen = measured.through(ways[name], Form("w4a8", asked.group_size))
            told = [f"{mean:.5f} ± {error:.5f}" for mean, error in map(mean_and_error, (kl, off))]
            seconds = time.perf_counter() - started
            print(
                f"{name}: KL {told[0]} held out, {seen:.5f} on calibration rows; last state off by {told[1]}; {seconds:.0f} s",
                flush=True,
            )
            if asked.out:
                with asked.out.open("a") as file:
                    file.writelines(f"{name},{row},{a:.7f},{b:.7f}\n" for row, (a, b) in enumerate(zip(kl, off, strict=True)))


if __name__ == "__main__":
    main()
